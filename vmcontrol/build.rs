//! Gives the library its soname, and keeps it in memory once it is loaded.
//!
//! Only what is marked `no_mangle` is visible: the compiler writes that list for the linker itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvmcontrol.so.1");
    // A look-up of a host name may still run when a program unloads the library after a time-out, and
    // threads of the program may hold thread-local values of it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
