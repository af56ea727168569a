//! `FileManager_*`: files and directories, with the rights of the caller.
//!
//! Nothing here asks whether the caller may: the process is the caller, and the kernel's answer is
//! the answer. An error names the path as the caller gave it; which error number becomes which code
//! is decided in one place, `ops::Error::file`. An operation on several items stops at the first
//! failure and tells in the same reply what was finished before.

use handlers_derive::handler;
use ops::Error;
use ops::file_manager::{
    ChangeAttribs, ChangeGroup, ChangeMode, ChangeOwner, ChangeReply, Existence, FileCopy, FileExists,
    FileExistsReply, FileMakeLink, FileMakeLinkReply, FileMove, FileRemove, FileRemoveReply, GetHomeDir,
    GetHomeDirReply, GetParentDir, GetParentDirReply, ListDir, ListDirReply, ListDirTree, ListDirTreeReply,
    MakeDir, MakeDirReply, Modes, RemoveDir, RemoveDirReply, TransferReply,
};
use ops::value::HostPath;
use rustix::fs::{AtFlags, CWD, linkat, symlinkat, unlinkat};
use uzers::os::unix::UserExt;

use crate::attributes::{self, Change};
use crate::transfer::{self, Attempt};
use crate::tree::{self, UMASK};
use crate::{Ctx, Failure, dir_tree, entries, place, remove};

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
    let entries = entries::list(&req.directory, req.show_hidden)?;
    Ok(ListDirReply { parent: parent(&req.directory)?, directory: req.directory, entries })
}

/// What a handler on several items answers: all of them, or the error with those that were finished.
fn several<T, R: ops::Reply>(
    items: Vec<T>,
    reply: impl FnOnce(Vec<T>) -> R,
    mut one: impl FnMut(&T) -> Result<(), Error>,
) -> Result<R, Error> {
    let mut done = Vec::new();
    for item in items {
        match one(&item) {
            Ok(()) => done.push(item),
            Err(error) => return Err(error.finished(&reply(done))),
        }
    }
    Ok(reply(done))
}

fn change(files: Vec<HostPath>, change: Change, recursive: bool) -> Result<ChangeReply, Error> {
    let reply = |files| ChangeReply { files };
    several(files, reply, |file| attributes::change(file.as_str(), &change, recursive))
}

/// Owner, group and rights. What the request leaves open stays.
#[handler]
fn change_attribs(_: &Ctx, req: ChangeAttribs) -> Result<ChangeReply, Error> {
    let owner = req.owner.as_deref().map(attributes::user).transpose()?;
    let group = req.group.as_deref().map(attributes::group).transpose()?;
    change(req.files, Change { owner, group, modes: req.modes }, req.recursive)
}

/// The group alone.
#[handler]
fn change_group(_: &Ctx, req: ChangeGroup) -> Result<ChangeReply, Error> {
    let group = Some(attributes::group(&req.group)?);
    change(req.files, Change { group, ..Change::default() }, req.recursive)
}

/// The rights alone.
#[handler]
fn change_mode(_: &Ctx, req: ChangeMode) -> Result<ChangeReply, Error> {
    change(req.files, Change { modes: req.modes, ..Change::default() }, req.recursive)
}

/// The owner alone.
#[handler]
fn change_owner(_: &Ctx, req: ChangeOwner) -> Result<ChangeReply, Error> {
    let owner = Some(attributes::user(&req.owner)?);
    change(req.files, Change { owner, ..Change::default() }, req.recursive)
}

/// What VMware Server 1.0.3 for Windows said instead of making a task.
const NO_NEW_TASK: &str = "Undefined subroutine &VMware::VMServerd::NewTask";

/// Copies at once what is small and near, and leaves the rest to a task.
#[handler]
pub(crate) async fn file_copy(ctx: &Ctx, req: FileCopy) -> Result<TransferReply, Failure> {
    let historic = ctx.historic_bugs;
    let attempt = move || {
        let plan = transfer::plan_copy(&req.files, &req.destination, req.overwrite, req.recursive)?;
        match plan.is_long() {
            true if historic => Err(Error::unspecified(NO_NEW_TASK)),
            true => Ok(Attempt { done: Vec::new(), left: Some(plan), failed: None }),
            false => Ok(plan.run()),
        }
    };
    finish(ctx, off_the_thread(attempt).await??).await
}

/// Renames what can be renamed, and leaves to a task what has to cross to another file system.
#[handler]
pub(crate) async fn file_move(ctx: &Ctx, req: FileMove) -> Result<TransferReply, Failure> {
    let attempt = move || transfer::begin_move(&req.files, &req.destination, req.overwrite);
    finish(ctx, off_the_thread(attempt).await??).await
}

/// Runs what waits for the disk where it holds nobody up.
async fn off_the_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| Failure::internal("copying or moving files", error))
}

/// Starts a task for what is left, and answers.
async fn finish(ctx: &Ctx, attempt: Attempt) -> Result<TransferReply, Failure> {
    let Attempt { done, left, mut failed } = attempt;
    let mut task_id = 0;
    if let (Some(plan), None) = (left, &failed) {
        let (task, work) = plan.into_task();
        match ctx.core.start_task(task, work).await {
            Ok(number) => task_id = number,
            Err(Failure::Told(fault)) => failed = Some(fault.into_error()),
            Err(internal) => return Err(internal),
        }
    }
    let files = (task_id == 0 || !done.is_empty()).then_some(done);
    match failed {
        None => Ok(TransferReply { task_id, files }),
        Some(error) => {
            let files = Some(files.unwrap_or_default());
            Err(error.finished(&TransferReply { task_id, files }).into())
        }
    }
}

/// Looks for names.
#[handler]
fn file_exists(_: &Ctx, req: FileExists) -> Result<FileExistsReply, Error> {
    let mut files = Vec::new();
    for path in req.files {
        match entries::existing(&path) {
            Ok(kind) => files.push(Existence { exists: kind.is_some(), kind, path }),
            Err(error) => return Err(error.finished(&FileExistsReply { files })),
        }
    }
    Ok(FileExistsReply { files })
}

/// A symbolic link, or a second name.
#[handler]
fn file_make_link(_: &Ctx, req: FileMakeLink) -> Result<FileMakeLinkReply, Error> {
    let (source, link) = (req.source.as_str(), req.link.as_str());
    if req.symbolic {
        symlinkat(source, CWD, link).map_err(place::at(link))?;
    } else {
        // The error of the call does not say which of the two paths is meant.
        place::open_path(CWD, source, false).map_err(place::at(source))?;
        linkat(CWD, source, CWD, link, AtFlags::empty()).map_err(place::at(link))?;
    }
    Ok(FileMakeLinkReply { link: req.link })
}

/// Removes names of files.
#[handler]
fn file_remove(_: &Ctx, req: FileRemove) -> Result<FileRemoveReply, Error> {
    let one = |file: &HostPath| {
        unlinkat(CWD, file.as_str(), AtFlags::empty()).map_err(|error| Error::file(file, &error.into()))
    };
    several(req.files, |files| FileRemoveReply { files }, one)
}

/// A directory with those below it.
#[handler]
fn list_dir_tree(_: &Ctx, req: ListDirTree) -> Result<ListDirTreeReply, Error> {
    dir_tree::list(req.directory, req.depth, req.directories_only)
}

/// Removes directories.
#[handler]
fn remove_dir(_: &Ctx, req: RemoveDir) -> Result<RemoveDirReply, Error> {
    let reply = |directories| RemoveDirReply { directories };
    several(req.directories, reply, |path| remove::directory(path.as_str(), req.recursive))
}

/// Rights that a new directory gets where the request leaves them open.
pub(crate) fn new_directory_mode(modes: Modes) -> u32 {
    modes.apply(0o777 & !UMASK)
}

/// Makes directories one after the other. Rights that the request leaves open are those of the umask.
#[handler]
fn make_dir(ctx: &Ctx, req: MakeDir) -> Result<MakeDirReply, Failure> {
    let mode = new_directory_mode(req.modes);
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
    use ops::file_manager::EntryType;
    use ops::value::Size;
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

    /// VMware Server 1.0.3 for Windows lost the separators. Made below a directory of the root that only
    /// this test uses.
    #[test]
    fn historical_bug_make_dir_with_parents_loses_separators() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED the historical MakeDir: makes directories in the root directory");
            return;
        }
        let first = format!("/vmserverd-test-{}", std::process::id());
        let request = || MakeDir {
            directories: vec![path(&format!("{first}/b/c"))],
            modes: Modes::default(),
            make_parents: true,
        };
        let mut old = ctx();
        old.historic_bugs = true;
        let made = make_dir(&old, request()).unwrap().directories;
        let made: Vec<_> = made.iter().map(HostPath::as_str).collect();
        assert_eq!(made, [first.clone(), format!("{first}b"), format!("{first}bc")]);
        for path in made {
            std::fs::remove_dir(path).unwrap();
        }
        let made = make_dir(&ctx(), request()).unwrap().directories;
        let made: Vec<_> = made.iter().map(HostPath::as_str).collect();
        assert_eq!(made, [first.clone(), format!("{first}/b"), format!("{first}/b/c")]);
        let gone = RemoveDir { directories: vec![path(&first)], recursive: true };
        remove_dir(&ctx(), gone).unwrap();
        assert!(!std::path::Path::new(&first).exists());
    }

    #[test]
    fn several_changes_stop_at_the_first_failure_and_tell_what_was_changed() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| path(&format!("{}/{name}", base.path().to_str().unwrap()));
        for name in ["a", "b"] {
            std::fs::write(base.path().join(name), "").unwrap();
        }
        let files = || ["a", "missing", "b"].map(at).to_vec();
        let modes = Modes::from_mode(0o600);
        let expected = format!("<files><file>{}</file></files>", at("a"));
        let finished = |error: Error| String::from_utf8(error.partial.unwrap().into()).unwrap();
        let request = ChangeMode { files: files(), modes, recursive: false };
        assert_eq!(finished(change_mode(&ctx(), request).unwrap_err()), expected);
        let nothing = ChangeAttribs {
            files: vec![at("a"), at("b")],
            owner: None,
            group: None,
            modes: Modes::default(),
            recursive: true,
        };
        assert_eq!(change_attribs(&ctx(), nothing).unwrap().files.len(), 2);
        let unknown = ChangeOwner { files: files(), owner: "no-such-name-here".into(), recursive: false };
        assert_eq!(change_owner(&ctx(), unknown).unwrap_err().code, ErrorCode::InvalidArgs);
        let unknown = ChangeGroup { files: files(), group: "no-such-name-here".into(), recursive: false };
        assert_eq!(change_group(&ctx(), unknown).unwrap_err().code, ErrorCode::InvalidArgs);
        let removed = file_remove(&ctx(), FileRemove { files: files() }).unwrap_err();
        assert_eq!(finished(removed), expected);
        let exists = file_exists(&ctx(), FileExists { files: files() }).unwrap();
        let found: Vec<_> = exists.files.iter().map(|one| (one.exists, one.kind)).collect();
        assert_eq!(found, [(false, None), (false, None), (true, Some(EntryType::File))]);
        let error = file_remove(&ctx(), FileRemove { files: vec![at("")] }).unwrap_err();
        assert!(error.text.ends_with("Is a directory"), "{error}");
    }

    #[test]
    fn links_of_both_kinds() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| path(&format!("{}/{name}", base.path().to_str().unwrap()));
        std::fs::write(base.path().join("a"), "a").unwrap();
        let make = |source: &str, link: &str, symbolic| {
            file_make_link(&ctx(), FileMakeLink { source: at(source), link: at(link), symbolic })
        };
        make("nowhere", "dangling", true).unwrap();
        make("a", "hard", false).unwrap();
        assert_eq!(std::fs::read(base.path().join("hard")).unwrap(), b"a");
        for (source, link, symbolic, named) in
            [("a", "hard", true, "hard"), ("a", "hard", false, "hard"), ("nowhere", "x", false, "nowhere")]
        {
            let error = make(source, link, symbolic).unwrap_err();
            assert!(error.code.number() == -999 && error.text.starts_with(at(named).as_str()), "{error}");
        }
        let looked = file_exists(&ctx(), FileExists { files: vec![at("dangling"), at("a/b")] }).unwrap();
        assert_eq!((looked.files[0].kind, looked.files[1].exists), (Some(EntryType::Link), false));
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
