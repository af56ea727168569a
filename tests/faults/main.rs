//! Faults F1 to F12: something dies, ends, lies about the time or calls too often, and the rest goes on.
//!
//! One file per fault. What runs with `cargo test` is bounded; `cargo xtask faults [F1 F3 …]` runs each at full
//! length and writes what was measured into docs/reliability.md.

#![forbid(unsafe_code)]

mod activated;
mod f01_core_killed;
mod f02_gateway_killed;
mod f03_machine_killed;
mod f04_session_killed;
mod f05_core_restarts;
mod f06_resources_end;
mod f07_power_cut;
mod f08_clock_jumps;
mod f09_pam;
mod f10_flood;
mod f11_soak;
mod f12_upgrade;

/// The program that calls as another user.
const CALLER: &str = env!("CARGO_BIN_EXE_caller");
