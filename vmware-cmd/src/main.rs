//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmware_cmd::main(std::env::args_os())
}
