//! `libvmcontrol`: the C library that programs written for VMware's scripting interface load.
//!
//! ```text
//!   C program ──▶ ffi/     pointers, Bool of one byte, results from malloc, the panic boundary
//!                  │
//!                  ▼
//!                object    one lock and one last error per object
//!                  │
//!                  ▼
//!             server, vm   what each call asks the server for; screenshot writes a file
//!                  │
//!                  ▼
//!          vmcontrol-client   connections, and the exec documents on them
//! ```
//!
//! Everything a C compiler would not see is decided in `ffi/` and nowhere else, and only there is
//! `unsafe`. What a program may rely on is in `include/vmcontrol.h` and the page vmcontrol(3).
//!
//! The library does nothing to its process: no signal handler, no output, no environment variable, no
//! thread but one for looking up a host name, while a connect lasts.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[allow(unsafe_code)]
mod ffi;
mod object;
mod screenshot;
mod server;
mod vm;
