//! A processor: a thread that runs the guest until it is told to stand still.
//!
//! ```text
//!             Gate::run                 an exit of KVM: port, memory, …
//!   parked ─────────────────▶ running ──────────────────────────────┐
//!     ▲                        │  ▲                                 │ board
//!     │   Gate::pause, or a    │  └─────────────────────────────────┘
//!     └── reason to stop ──────┘
//! ```
//!
//! A running processor is called back by a signal that does nothing but end `KVM_RUN`. A signal that
//! comes a moment too early is lost, so it is sent again until the processor stands still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor::control::HostClass;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::board::{Board, Stop};
use crate::{memory, sys};

/// Fills of gaps that are told one by one.
pub const FILLS_TOLD: u64 = 100;

/// How long a processor waits until it is known how the host runs guests.
const CLASS_WAIT: Duration = Duration::from_secs(5);

/// What the processors shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Run,
    Pause,
    End,
}

#[derive(Debug)]
struct State {
    want: Want,
    /// Processors that stand still.
    parked: usize,
}

/// Starts and stops all processors of a machine.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { state: Mutex::new(State { want: Want::Pause, parked: 0 }), changed: Condvar::new() }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    fn set(&self, want: Want) {
        let mut state = lock(&self.state);
        if state.want != Want::End {
            state.want = want;
        }
        self.changed.notify_all();
    }

    fn wanted(&self) -> Want {
        lock(&self.state).want
    }

    /// Stands still until something else is wanted; false at the end.
    fn park(&self) -> bool {
        let mut state = lock(&self.state);
        state.parked += 1;
        self.changed.notify_all();
        while state.want == Want::Pause {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked -= 1;
        state.want == Want::Run
    }
}

/// Why a processor stopped all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The board says so.
    Stop(Stop),
    /// The guest is beyond help: a triple fault. A real machine resets.
    TripleFault,
    /// KVM cannot go on.
    Broken(String),
    /// An instruction that KVM lacks was carried out here: which, and where. Nothing has stopped. The first
    /// [`FILLS_TOLD`] are told; [`Shared::filled`] counts all.
    Filled(String),
}

/// What the processors of one machine share.
pub struct Shared {
    /// The board.
    pub board: Mutex<Board>,
    /// Starts and stops them.
    pub gate: Gate,
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    /// Told what happened; called on a processor's thread.
    pub events: Box<dyn Fn(Event) + Send + Sync>,
    /// How the host runs guests, once it is known.
    pub class: OnceLock<HostClass>,
    /// Instructions that were carried out here.
    pub filled: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// The processors of a machine.
#[derive(Debug)]
pub struct Vcpus {
    shared: Arc<Shared>,
    /// Held by the thread while it runs; free while it stands still.
    pub(crate) fds: Vec<Arc<Mutex<VcpuFd>>>,
    threads: Vec<JoinHandle<()>>,
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Makes a file that may not grow an error of the write, which becomes a question, and not the end of the
/// process.
///
/// # Errors
/// As `sigaction(2)`.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    Ok(register_signal_handler(libc::SIGXFSZ, nothing)?)
}

fn signal() -> libc::c_int {
    SIGRTMIN() + 1
}

impl Vcpus {
    /// Starts a thread for each processor; all of them stand still. `enter` is called on each first.
    ///
    /// # Errors
    /// When threads or the signal cannot be had.
    pub fn start(
        shared: Arc<Shared>,
        fds: Vec<VcpuFd>,
        enter: fn() -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        register_signal_handler(signal(), nothing)?;
        let fds: Vec<_> = fds.into_iter().map(|fd| Arc::new(Mutex::new(fd))).collect();
        let mut vcpus = Vcpus { shared, fds, threads: Vec::new() };
        for (number, fd) in vcpus.fds.iter().enumerate() {
            let (fd, shared) = (Arc::clone(fd), Arc::clone(&vcpus.shared));
            let run = move || match enter() {
                Ok(()) => run(&fd, &shared),
                Err(error) => {
                    (shared.events)(Event::Broken(format!("a processor's thread: {error}")));
                    while shared.gate.park() {
                        shared.gate.set(Want::Pause);
                    }
                }
            };
            vcpus.threads.push(std::thread::Builder::new().name(format!("vcpu{number}")).spawn(run)?);
        }
        vcpus.wait_parked();
        Ok(vcpus)
    }

    /// Lets all processors run.
    pub fn run(&self) {
        self.shared.gate.set(Want::Run);
    }

    /// Makes all processors stand still, and waits until they do.
    pub fn pause(&self) {
        self.shared.gate.set(Want::Pause);
        self.wait_parked();
    }

    /// Calls the first processor out of the guest, if it runs; it goes back at once.
    pub fn nudge(&self) {
        if self.shared.gate.wanted() == Want::Run
            && let Some(thread) = self.threads.first()
        {
            // Fails only for a thread that has ended.
            let _ = thread.kill(signal());
        }
    }

    fn wait_parked(&self) {
        let gate = &self.shared.gate;
        let mut state = lock(&gate.state);
        while state.parked < self.threads.len() {
            drop(state);
            for thread in &self.threads {
                // Fails only for a thread that has ended.
                let _ = thread.kill(signal());
            }
            state = lock(&gate.state);
            if state.parked < self.threads.len() {
                let wait = gate.changed.wait_timeout(state, Duration::from_millis(1));
                state = wait.map_or_else(|error| error.into_inner().0, |(state, _)| state);
            }
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.shared.gate.set(Want::End);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                let _ = thread.kill(signal());
                std::thread::sleep(Duration::from_micros(200));
            }
            let _ = thread.join();
        }
    }
}

fn run(fd: &Mutex<VcpuFd>, shared: &Shared) {
    loop {
        if shared.gate.wanted() != Want::Run {
            settle(&mut lock(fd), shared);
            if !shared.gate.park() {
                return;
            }
        }
        let event = step(&mut lock(fd), shared);
        if let Some(event) = event {
            if !matches!(event, Event::Filled(_)) {
                shared.gate.set(Want::Pause);
            }
            (shared.events)(event);
        }
    }
}

/// Lets KVM finish an access that it has begun, so that registers and memory agree.
fn settle(fd: &mut VcpuFd, shared: &Shared) {
    fd.set_kvm_immediate_exit(1);
    // A string instruction may bring more accesses; each is carried out.
    for _ in 0..100_000 {
        match step_once(fd, shared) {
            Stepped::Interrupted => break,
            Stepped::Event(event) => {
                (shared.events)(event);
                break;
            }
            Stepped::Again => {}
        }
    }
    fd.set_kvm_immediate_exit(0);
}

fn step(fd: &mut VcpuFd, shared: &Shared) -> Option<Event> {
    match step_once(fd, shared) {
        Stepped::Event(event) => Some(event),
        Stepped::Interrupted | Stepped::Again => None,
    }
}

enum Stepped {
    Again,
    Interrupted,
    Event(Event),
}

/// Runs the guest until its next exit, and does what that asks for.
fn step_once(fd: &mut VcpuFd, shared: &Shared) -> Stepped {
    let exit = match fd.run() {
        Ok(exit) => exit,
        Err(error) => {
            return match error.errno() {
                libc::EINTR => Stepped::Interrupted,
                // A processor that waits to be started by another.
                libc::EAGAIN => Stepped::Interrupted,
                _ => Stepped::Event(Event::Broken(format!("KVM_RUN: {error}"))),
            };
        }
    };
    let stop = match exit {
        VcpuExit::IoOut(port, data) => lock(&shared.board).write(port, data),
        VcpuExit::IoIn(port, data) => lock(&shared.board).read(port, data),
        VcpuExit::MmioRead(_, data) => {
            data.fill(0xff);
            None
        }
        VcpuExit::MmioWrite(..) | VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => None,
        VcpuExit::Intr => return Stepped::Interrupted,
        VcpuExit::Shutdown => return Stepped::Event(Event::TripleFault),
        VcpuExit::InternalError => return fill_gap(fd, shared),
        VcpuExit::FailEntry(reason, _) => {
            return Stepped::Event(Event::Broken(format!("the host refuses to run the guest ({reason:#x})")));
        }
        other => {
            return Stepped::Event(Event::Broken(format!("an exit of KVM that was not expected: {other:?}")));
        }
    };
    stop.map_or(Stepped::Again, |stop| Stepped::Event(Event::Stop(stop)))
}

/// Suberror of an instruction that KVM's emulator does not know.
const EMULATION: u32 = 1;

/// Whether the host emulates system code. It may take a moment until that is known.
fn is_emulated(shared: &Shared) -> bool {
    let start = Instant::now();
    loop {
        match shared.class.get() {
            Some(class) => return *class == HostClass::Emulated,
            None if start.elapsed() > CLASS_WAIT => return false,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Carries out one of two instructions that KVM lacks where it emulates: memtest86+ needs the first,
/// small kernels the second. Everything else, and on other hosts these too, ends the machine.
fn fill_gap(fd: &mut VcpuFd, shared: &Shared) -> Stepped {
    let suberror = sys::internal_suberror(fd);
    let place = fd.get_regs().map(|regs| format!("{:#x}", regs.rip)).unwrap_or_default();
    let emulated = suberror == EMULATION && is_emulated(shared);
    match emulated.then(|| fill(fd, &shared.memory)).flatten() {
        Some(name) if shared.filled.fetch_add(1, Ordering::Relaxed) < FILLS_TOLD => {
            Stepped::Event(Event::Filled(format!("{name} at {place}")))
        }
        Some(_) => Stepped::Again,
        None => {
            let code = code_at(fd, &shared.memory).unwrap_or_default();
            let code: Vec<String> = code.iter().map(|byte| format!("{byte:02x}")).collect();
            let code = code.join(" ");
            Stepped::Event(Event::Broken(format!(
                "KVM cannot go on at {place} (suberror {suberror}, code {code})"
            )))
        }
    }
}

fn code_at(fd: &VcpuFd, memory: &GuestMemoryMmap) -> Option<[u8; 8]> {
    let (regs, sregs) = (fd.get_regs().ok()?, fd.get_sregs().ok()?);
    let address = if sregs.cs.l != 0 { regs.rip } else { sregs.cs.base.wrapping_add(regs.rip) };
    let translated = fd.translate_gva(address).ok()?;
    let mut code = [0; 8];
    memory::read(memory, translated.physical_address, &mut code).ok()?;
    Some(code)
}

fn fill(fd: &VcpuFd, memory: &GuestMemoryMmap) -> Option<&'static str> {
    let mut regs = fd.get_regs().ok()?;
    let [code, ..] = code_at(fd, memory)?;
    match code {
        // FWAIT: no x87 exceptions are pending in guests that get here.
        0x9b => {
            regs.rip += 1;
            fd.set_regs(&regs).ok()?;
            Some("fwait")
        }
        // INT3: a breakpoint exception, with RIP behind the instruction.
        0xcc => {
            regs.rip += 1;
            fd.set_regs(&regs).ok()?;
            let mut events = fd.get_vcpu_events().ok()?;
            events.exception.injected = 1;
            events.exception.nr = 3;
            events.exception.has_error_code = 0;
            fd.set_vcpu_events(&events).ok()?;
            Some("int3")
        }
        _ => None,
    }
}
