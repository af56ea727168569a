//! C programs: compiled against the header of this repository and the library under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{account, programs};

/// Where `vmcontrol.h` is.
pub fn include() -> PathBuf {
    programs::repository().join("vmcontrol/include")
}

/// Where the C sources of these tests are.
pub fn sources() -> PathBuf {
    programs::repository().join("tests/tests/vmcontrol/c")
}

/// A directory with the library under the names that linker and loader look for.
pub fn library(into: &Path) -> PathBuf {
    let directory = into.join("lib");
    if !directory.exists() {
        std::fs::create_dir(&directory).unwrap();
        let built = programs::library();
        assert!(built.exists(), "{built:?} is not built: cargo build --release -p vmcontrol");
        std::fs::copy(built, directory.join("libvmcontrol.so.1.0.0")).unwrap();
        for name in ["libvmcontrol.so.1", "libvmcontrol.so", "vmcontrol.so", "vmcontrol64.so"] {
            std::os::unix::fs::symlink("libvmcontrol.so.1.0.0", directory.join(name)).unwrap();
        }
    }
    directory
}

/// Compiles a source with these options and links the library.
pub fn compile(into: &Path, source: &Path, program: &str, options: &[&str]) -> PathBuf {
    let library = library(into);
    let path = into.join(program);
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g"]).args(options);
    command.arg("-I").arg(include()).arg("-o").arg(&path).arg(source);
    command.arg("-L").arg(&library).arg(format!("-Wl,-rpath,{}", library.display()));
    command.args(["-lvmcontrol", "-lpthread"]);
    account::output(&mut command);
    path
}
