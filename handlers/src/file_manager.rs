//! `FileManager_*`: files and directories, with the rights of the caller.
//!
//! Nothing here asks whether the caller may: the process is the caller, and the kernel's answer is
//! the answer. An error names the path as the caller gave it; which error number becomes which code
//! is decided in one place, `ops::Error::file`. An operation on several items stops at the first
//! failure and tells in the same reply what was finished before.

use handlers_derive::handler;
use ops::Error;
use ops::file_manager::{
    Entry, EntryType, GetHomeDir, GetHomeDirReply, GetParentDir, GetParentDirReply, ListDir, ListDirReply,
    MakeDir, MakeDirReply, Modes,
};
use ops::value::{HostPath, Size, Time};
use rustix::fs::FileType;
use uzers::os::unix::UserExt;

use crate::names::Names;
use crate::tree::{self, Found, UMASK};
use crate::{Ctx, Failure};

/// The home directory of the caller, or of the user named. Asks the user database, which may be remote.
#[handler]
fn get_home_dir(ctx: &Ctx, req: GetHomeDir) -> Result<GetHomeDirReply, Error> {
    let directory = match req.user {
        None => ctx.user.home.clone(),
        Some(name) => uzers::get_user_by_name(&name)
            .map(|user| user.home_dir().to_string_lossy().into_owned())
            .ok_or_else(|| Error::invalid("user", format_args!("no user of that name: {name}")))?,
    };
    Ok(GetHomeDirReply { directory })
}

/// The directory above, without a look at the disk.
#[handler(quick)]
fn get_parent_dir(_: &Ctx, req: GetParentDir) -> Result<GetParentDirReply, Failure> {
    Ok(GetParentDirReply { directory: parent(&req.directory)? })
}

/// Everything before the last name; slashes at the end belong to no name, and `/` is above `/`.
fn parent(path: &HostPath) -> Result<HostPath, Failure> {
    let trimmed = path.as_str().trim_end_matches('/');
    let above = trimmed.rfind('/').and_then(|at| trimmed.get(..at)).unwrap_or_default();
    let above = match above.trim_end_matches('/') {
        "" => "/",
        above => above,
    };
    host_path(above.to_owned())
}

/// A path that we made from valid ones.
fn host_path(path: String) -> Result<HostPath, Failure> {
    HostPath::try_from(path).map_err(|why| Failure::internal("making a path", format!("{why:?}")))
}

/// The entries of a directory with their facts.
#[handler]
fn list_dir(_: &Ctx, req: ListDir) -> Result<ListDirReply, Failure> {
    let found = tree::read(req.directory.as_str(), req.show_hidden)
        .map_err(|error| Error::file(&req.directory, &error))?;
    let above = req.directory.as_str().trim_end_matches('/');
    let mut names = Names::default();
    let entries = found.iter().map(|one| entry(above, one, &mut names)).collect();
    Ok(ListDirReply { parent: parent(&req.directory)?, directory: req.directory, entries })
}

/// One entry of a listing. A name that XML cannot carry is given in base64, with its whole path.
fn entry(directory: &str, found: &Found, names: &mut Names) -> Entry {
    let facts = &found.facts;
    let name = found.name.as_bytes();
    let path = [directory.as_bytes(), b"/", name].concat();
    let (name_encoding, name, path) = Entry::names(name, &path);
    let mode = u32::from(facts.stx_mode);
    Entry {
        name_encoding,
        name,
        path,
        kind: match FileType::from_raw_mode(mode) {
            FileType::RegularFile => EntryType::File,
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Link,
            _ => EntryType::Other,
        },
        size: Size(facts.stx_size),
        mtime: Time(facts.stx_mtime.tv_sec),
        owner: names.user(facts.stx_uid).to_owned(),
        group: names.group(facts.stx_gid).to_owned(),
        modes: Modes::from_mode(mode),
    }
}

/// Makes directories one after the other. Rights that the request leaves open are those of the umask.
#[handler]
fn make_dir(ctx: &Ctx, req: MakeDir) -> Result<MakeDirReply, Failure> {
    let mode = req.modes.apply(0o777 & !UMASK);
    let mut made: Vec<String> = Vec::new();
    let mut failed = None;
    for path in &req.directories {
        let text = path.as_str();
        let note = |path: &str| made.push(path.to_owned());
        let result = match (req.make_parents, ctx.historic_bugs) {
            (false, _) => tree::make_directory(text, mode).map(|()| made.push(text.to_owned())),
            (true, false) => tree::make_with_parents(text, mode, note),
            (true, true) => tree::make_glued(text, mode, note),
        };
        if let Err(error) = result {
            failed = Some(Error::file(path, &error));
            break;
        }
    }
    let directories = made.into_iter().map(host_path).collect::<Result<_, _>>()?;
    let reply = MakeDirReply { directories };
    match failed {
        None => Ok(reply),
        Some(error) => Err(error.finished(&reply).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use ops::{ErrorCode, Fault};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn path(text: &str) -> HostPath {
        HostPath::try_from(text.to_owned()).unwrap()
    }

    fn told(failure: Failure) -> Error {
        match failure {
            Failure::Told(Fault::Refused(error)) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn parents_are_cut_from_the_text() {
        for (of, above) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/"),
            ("/a/", "/"),
            ("/a/b", "/a"),
            ("/a//b//", "/a"),
            ("/a/..", "/a"),
        ] {
            let reply = get_parent_dir(&ctx(), GetParentDir { directory: path(of) }).unwrap();
            assert_eq!(reply.directory.as_str(), above, "{of}");
        }
    }

    #[test]
    fn home_of_the_caller_of_a_user_and_of_nobody() {
        let home = |user: Option<&str>| get_home_dir(&ctx(), GetHomeDir { user: user.map(str::to_owned) });
        assert_eq!(home(None).unwrap().directory, "/home/alice");
        assert_eq!(home(Some("root")).unwrap().directory, "/root");
        let error = home(Some("no-such-user-here")).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgs);
        assert!(error.text.starts_with("Invalid argument: user: "), "{}", error.text);
    }

    #[test]
    fn several_directories_stop_at_the_first_failure_and_tell_what_was_made() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().to_str().unwrap();
        let directories: Vec<_> =
            ["one", "two", "two", "three"].map(|name| path(&format!("{base}/{name}"))).to_vec();
        let request = MakeDir { directories, modes: Modes::default(), make_parents: false };
        let error = told(make_dir(&ctx(), request).unwrap_err());
        assert_eq!((error.code.number(), error.text.as_str()), (-999, &*format!("{base}/two: File exists")));
        let finished = String::from_utf8(error.partial.unwrap().into()).unwrap();
        assert_eq!(
            finished,
            format!(
                "<directories><directory>{base}/one</directory><directory>{base}/two</directory></directories>"
            )
        );
        assert!(!std::path::Path::new(base).join("three").exists());
    }

    #[test]
    fn rights_left_open_follow_the_umask() {
        let base = tempfile::tempdir().unwrap();
        let at = format!("{}/d", base.path().to_str().unwrap());
        let modes = Modes { group_mode: Some(ops::value::Triad::from_bits(0o7)), ..Modes::default() };
        make_dir(&ctx(), MakeDir { directories: vec![path(&at)], modes, make_parents: false }).unwrap();
        let listed =
            list_dir(&ctx(), ListDir { directory: path(base.path().to_str().unwrap()), show_hidden: true })
                .unwrap();
        assert_eq!(listed.entries.len(), 1);
        assert_eq!(listed.entries[0].modes, Modes::from_mode(0o775));
        assert_eq!((listed.entries[0].kind, listed.entries[0].path.as_str()), (EntryType::Directory, &*at));
    }

    #[test]
    fn a_missing_parent_is_an_error_unless_parents_are_made() {
        let base = tempfile::tempdir().unwrap();
        let at = format!("{}/p/q", base.path().to_str().unwrap());
        let request =
            |make_parents| MakeDir { directories: vec![path(&at)], modes: Modes::default(), make_parents };
        let error = told(make_dir(&ctx(), request(false)).unwrap_err());
        assert_eq!(error.text, format!("{at}: No such file or directory"));
        assert_eq!(make_dir(&ctx(), request(true)).unwrap().directories.len(), 2);
        assert_eq!(make_dir(&ctx(), request(true)).unwrap().directories.len(), 0);
    }

    #[test]
    fn names_that_xml_cannot_carry_are_listed_in_base64() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
        std::fs::write(base.path().join("ok"), "abc").unwrap();
        let directory = path(base.path().to_str().unwrap());
        let listed = list_dir(&ctx(), ListDir { directory, show_hidden: true }).unwrap();
        assert_eq!(listed.entries[0].name, "ok");
        assert_eq!(listed.entries[0].size, Size(3));
        assert_eq!(listed.entries[1].name, "/w==");
        assert!(listed.entries[1].name_encoding.is_some());
    }
}
