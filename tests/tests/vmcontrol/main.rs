//! The C library, as programs in C and Java meet it.
//!
//! ```text
//!   names, header      what the file offers, compared with the record in vmcontrol/abi.txt
//!   faults             fake servers: gone, slow, garbage, without end, another certificate
//!   machines           a live instance with a machine: C under AddressSanitizer and valgrind, 64 threads
//!   java               the unmodified classes of Debian's libhyperic-sigar-java
//! ```

mod c;
mod faults;
mod java;
mod machines;
mod names;
mod trap;
