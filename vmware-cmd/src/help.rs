//! The help, which fits a screen of 80 columns and 24 rows.

/// What `-h` prints.
pub(crate) fn page() -> String {
    PAGE.to_owned()
}

const PAGE: &str = "\
Use: vmware-cmd [options] <cfg> <action> [arguments]     a machine, by its .vmx
     vmware-cmd -s [options] <action> [arguments]        the server
     vmware-cmd [options] -l [--long]                    the list of machines
Options: -H <host>  -O <port>  -U <user>  -P <password>  -q quiet  -v verbose
     --password-file FILE  --timeout SECONDS  --root DIR  --json  --version
     (password also: VMWARE_CMD_PASSWORD in the environment, or a prompt)
On a machine: start stop reset suspend [hard|soft|trysoft]    getstate answer
     getconfig <key>      setconfig <key> <value>      getconfigfile
     getguestinfo <key>   setguestinfo <key> <value>   getcapabilities
     getpid getid getuptime getheartbeat gettoolslastactive getconnectedusers
     getproductinfo <product|platform|build|majorversion|minorversion|revision>
     connectdevice|disconnectdevice <device>           getremoteconnections
     createsnapshot [name description quiesce memory]  hassnapshot
     revertsnapshot removesnapshots  getresource <name>  getrunasuser
On the server (-s): register|unregister <cfg>   getresource <name>
More, where no file has that name:
     exec [FILE|-]  exec NAME key=value ...     send a request, show the reply
     ops [NAME]             operations of the server, or all about one
     watch [CFG ...]        what happens, as it happens
     task [ID]              long work, with progress (--stop --delete --all)
     doctor                 what is wrong here, and the command that repairs it
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::{MACHINE, SERVER};
    use crate::grammar::NEW;

    /// What the server has not is not promised.
    const RESERVED: &[&str] = &["setrunasuser", "addredo", "commit", "setresource"];

    #[test]
    fn it_fits_a_screen() {
        assert!(page().lines().count() < 24, "{}", page().lines().count());
        for line in page().lines() {
            assert!(line.chars().count() <= 79, "{line}");
        }
    }

    fn words(text: &str) -> Vec<&str> {
        text.split(|letter: char| !letter.is_ascii_alphanumeric()).collect()
    }

    #[test]
    fn everything_is_in_it() {
        let page = words(PAGE);
        let actions = MACHINE.iter().chain(SERVER).map(|action| action.name);
        for name in
            actions.chain(NEW.iter().map(|(name, _, _)| *name)).filter(|name| !RESERVED.contains(name))
        {
            assert!(page.contains(&name), "{name} is not in the help");
        }
    }
    /// A file of the packaging.
    fn packaged(name: &str) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/");
        std::fs::read_to_string(format!("{path}{name}")).unwrap()
    }

    #[test]
    fn every_word_is_completed_and_in_the_manual() {
        for file in [
            "completion/vmware-cmd.bash",
            "completion/_vmware-cmd",
            "completion/vmware-cmd.fish",
            "man/vmware-cmd.1",
        ] {
            let text = packaged(file).replace("\\-", "-");
            let there = words(&text);
            for action in MACHINE.iter().chain(SERVER) {
                assert!(there.contains(&action.name), "{} is not in {file}", action.name);
            }
            for (name, _, options) in NEW {
                assert!(there.contains(name), "{name} is not in {file}");
                for option in *options {
                    let fish = format!("-l {option}");
                    let listed = text.contains(&format!("--{option}")) || text.contains(&fish);
                    let looped = file.ends_with("fish") && text.contains(&format!(" {option}"));
                    assert!(listed || looped, "--{option} is not in {file}");
                }
            }
        }
    }
}
