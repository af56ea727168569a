//! The two calls into the C library that have no safe form.

use std::ffi::CStr;

/// Gives free memory back to the system.
#[allow(unsafe_code)]
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number of bytes to keep, no pointer, and may be called by any thread at any time;
    // memory that is in use is not touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps a library in memory as long as the process lives, whoever lets go of it; false when it is not loaded.
#[allow(unsafe_code)]
pub fn keep_loaded(path: &CStr) -> bool {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // JUSTIFICATION: libpam has no way to keep its modules, and loading them is most of what a login costs.
    // SAFETY: the path is a string with an end. RTLD_NOLOAD loads nothing, so no code of a library runs; the handle
    // is not used.
    let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
    !handle.is_null()
}
