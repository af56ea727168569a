//! `vmx`: the process of one machine.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
