//! Gives the library its soname, keeps it in memory once it is loaded, and leaves it with nothing to
//! load but libc.
//!
//! Only what is marked `no_mangle` is visible: the compiler writes that list for the linker itself.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvmcontrol.so.1");
    // A look-up of a host name may still run when a program unloads the library after a time-out, and
    // threads of the program may hold thread-local values of it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The compiler names libgcc_s, which unwinds. Found here first, the name means its static half.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        let directory = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
        std::fs::write(directory.join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n")?;
        println!("cargo:rustc-link-search=native={}", directory.display());
    }
    Ok(())
}
