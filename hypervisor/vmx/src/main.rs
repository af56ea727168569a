//! `vmx`: the process of one machine. Started by the server core, with its control channel as
//! descriptor 0; see the library. `vmx probe`, with `/dev/kvm` as descriptor 0, prints how the host runs
//! guests and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmx: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    vmx::sys::close_from(3)?;
    rustix::thread::set_name(c"vmx")?;
    let socket = vmx::sys::take_control_descriptor();
    if std::env::args().nth(1).is_some_and(|word| word == "probe") {
        return probe(socket);
    }
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    vmx::vcpu::survive_file_size_limit()?;
    // Lines of the log are in local time; the zone is read before files are out of reach.
    link::logfile::zone();
    // No thread is started by this, and what it opens is not on the list of the sandbox.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let terminate = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    vmx::sandbox::close_process()?;
    runtime.block_on(vmx::driver::run(socket, terminate))
}

/// Prints `native`, `emulated` or `none`.
fn probe(device: std::os::fd::OwnedFd) -> std::io::Result<()> {
    use std::io::Write;

    let word = vmx::probe::class(device)?.name();
    writeln!(std::io::stdout(), "{word}")
}
