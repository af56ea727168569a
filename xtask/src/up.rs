//! `xtask up`: one whole instance below a directory, in the foreground.
//!
//! Prints exactly one line on standard output, when logins are accepted:
//!
//! ```text
//! ready tls=127.0.0.1:9902 plain=127.0.0.1:9903 socket=/…/run/vmware/authd.sock
//! ```

use std::path::PathBuf;

use crate::instance::{Instance, Ports};
use crate::workspace::Binaries;
use crate::{Result, supervise};

/// Arguments of `xtask up`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory of the instance; made if it is missing
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// TCP port on 127.0.0.1 for TLS callers; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    tls_port: u16,
    /// TCP port on 127.0.0.1 for plain callers; 0 is off
    #[arg(long, value_name = "M", default_value_t = 0)]
    plain_port: u16,
    /// A key of etc/vmserverd.toml, for example authd.login.delay=0; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// Use the daemons in this directory as they are, instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let ports = Ports { tls: arguments.tls_port, plain: arguments.plain_port };
    let instance = Instance::claim(&arguments.root, ports)?;
    instance.configure(&arguments.settings)?;
    let binaries = match &arguments.bin_dir {
        Some(directory) => Binaries::in_directory(directory)?,
        None => Binaries::build()?,
    };
    supervise::run(&instance, &binaries, async |instance| {
        if let Some(command) = binaries.vmware_cmd(instance.layout.root()) {
            eprintln!("use it with: {command} -h");
        }
        println!("ready {} socket={}", instance.ports.describe(), instance.layout.authd_socket().display());
        Ok(())
    })
}
