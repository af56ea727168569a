//! What the product's own settings say about new machines.

use std::path::PathBuf;

use link::Layout;
use link::layout::VM_DIRECTORY;
use link::product_config::ProductConfig;

use crate::Failure;

/// The directory of new machines: `vmdir` of the product's settings, if that is an absolute path, else
/// the product's own, below the root of the instance. Reads a small file.
///
/// # Errors
/// When the settings cannot be read.
pub(crate) fn vm_directory(layout: &Layout) -> Result<PathBuf, Failure> {
    let config = ProductConfig::load(&layout.product_config())
        .map_err(|error| Failure::internal("reading the product's settings", error))?;
    let named = config.get("vmdir").map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(named.unwrap_or_else(|| layout.path(VM_DIRECTORY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_new_machines() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(root.path())).unwrap();
        let default = root.path().join("var/lib/vmware/Virtual Machines");
        assert_eq!(vm_directory(&layout).unwrap(), default);
        std::fs::create_dir_all(root.path().join("etc/vmware")).unwrap();
        for (line, directory) in [
            ("vmdir = \"/srv/vm\"\n", "/srv/vm".into()),
            ("vmdir = \"vm\"\n", default.clone()),
            ("vmdir = \"\"\n", default),
        ] {
            std::fs::write(layout.product_config(), line).unwrap();
            assert_eq!(vm_directory(&layout).unwrap(), directory, "{line}");
        }
    }
}
