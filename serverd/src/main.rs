//! `vmserverd`: see the crate `serverd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    serverd::main()
}
