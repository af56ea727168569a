//! Requests about devices: media, keyboard, screen, guest variables.

use std::io;
use std::sync::Arc;

use hypervisor::control::{FromVmx, MAX_GUEST_INFO};

use super::Driver;
use crate::chips::keys;
use crate::drives;
use crate::machine::Machine;
use crate::queue::code;
use crate::typist::Typist;

impl Driver {
    pub(super) fn need_on(&self) -> Result<Arc<Machine>, (i32, String)> {
        self.machine.clone().ok_or_else(|| (code::BAD_STATE, String::new()))
    }

    pub(super) fn connect(&mut self, device: &str, connected: bool) -> Result<(), (i32, String)> {
        let machine = self.need_on()?;
        let plan = self.plan.as_ref().ok_or((code::BAD_STATE, String::new()))?;
        let device = device.to_ascii_lowercase();
        let failed = |error: drives::Error| (code::UNSPECIFIED, error.to_string());
        if let Some(drive) = plan.drives.iter().find(|drive| drive.name == device) {
            if !drive.cd {
                return Err((code::NOT_SUPPORTED, format!("{device} is a fixed disk")));
            }
            let medium = match (&drive.file, connected) {
                (Some(file), true) => Some(drives::open_cd(&device, file).map_err(failed)?),
                (None, true) => return Err((code::NOT_SUPPORTED, format!("{device} has no image"))),
                (_, false) => None,
            };
            machine.board().set_medium(drive.channel, drive.unit, medium);
        } else if let Some(floppy) = plan.floppy.as_ref().filter(|floppy| floppy.name == device) {
            let image = if connected {
                Some(drives::read_floppy(&device, &floppy.file).map_err(failed)?)
            } else {
                None
            };
            // The firmware reads the image when it starts: it counts from the next reset on.
            machine.board().set_floppy(image);
        } else if plan.serial.iter().any(|port| format!("serial{}", port.number) == device) {
            return Err((code::NOT_SUPPORTED, "serial ports are always connected".into()));
        } else {
            return Err((code::NO_PROPERTY, device));
        }
        self.connected.insert(device.clone(), connected);
        self.speaker.say(FromVmx::Device { device, connected });
        Ok(())
    }

    pub(super) fn press(&mut self, text: &str) -> Result<(), (i32, String)> {
        let machine = self.need_on()?;
        let keys: Result<_, _> = text.chars().map(keys::codes).collect();
        let keys = keys.map_err(|error: keys::NoKey| (code::INVALID_ARGUMENT, error.to_string()))?;
        let typist = self.typist.get_or_insert_with(|| Typist::new(&machine));
        let taken = typist.press(keys, self.class);
        if taken { Ok(()) } else { Err((code::NO_RESOURCES, "the keyboard's queue is full".into())) }
    }

    pub(super) fn screenshot(&self) -> Result<(u32, u32, Vec<u8>), (i32, String)> {
        let machine = self.need_on()?;
        let failed = |error: io::Error| (code::UNSPECIFIED, error.to_string());
        let screen = machine.screen().map_err(failed)?;
        let (text, colours) =
            screen.ok_or((code::NOT_SUPPORTED, "the screen is in a graphics mode".to_owned()))?;
        text.png(machine.font(), &colours).map_err(failed)
    }

    pub(super) fn guest_info(&self, key: &str) -> Option<String> {
        let key = key.to_ascii_lowercase();
        self.variables.get(&key).cloned().or_else(|| {
            self.session.configuration().ok().and_then(|vmx| vmx.guest_info(&key).map(str::to_owned))
        })
    }

    pub(super) fn set_guest_info(&mut self, key: &str, value: String) -> Result<(), (i32, String)> {
        self.need_on()?;
        let key = key.to_ascii_lowercase();
        if key.is_empty() || key.len() > 255 {
            return Err((code::INVALID_ARGUMENT, "a name of 1 to 255 bytes".into()));
        }
        let others = self.variables.iter().filter(|(name, _)| **name != key);
        let size: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if size + key.len() + value.len() > MAX_GUEST_INFO {
            return Err((
                code::NO_RESOURCES,
                format!("guest variables are limited to {MAX_GUEST_INFO} bytes in all"),
            ));
        }
        self.variables.insert(key.clone(), value);
        self.speaker.say(FromVmx::GuestInfo { key });
        Ok(())
    }
}
