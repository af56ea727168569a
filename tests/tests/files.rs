//! Files and directories through the real server, as root and as ordinary users.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tests::exec::{Exec, request};
use tests::{Account, Caller, Setup, need_root};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// An element with the text of a path.
fn element(name: &str, path: &Path) -> String {
    format!("<{name}>{}</{name}>", path.display())
}

fn list(wrapper: &str, item: &str, paths: &[&Path]) -> String {
    let items: String = paths.iter().map(|path| element(item, path)).collect();
    format!("<{wrapper}>{items}</{wrapper}>")
}

fn files(paths: &[&Path]) -> String {
    list("files", "file", paths)
}

#[test]
fn a_file_is_created_read_copied_and_deleted() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("files");
    let (file, copy) = (place.join("a & b"), place.join("copy"));
    let path = |name: &str, path: &Path| element(name, path).replace('&', "&amp;");
    let modes = "<owner_mode>rw</owner_mode><group_mode>r</group_mode><other_mode/>";
    let contents = "<contents>one\ntwo &lt;3\nthree\n</contents>";
    let reply = exec.op("File_Create", &(path("file", &file) + contents + modes));
    assert_eq!(reply.out("size"), "17");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    let reply = exec.op("File_Create", &(path("file", &file) + contents));
    assert_eq!(reply.error(), Some((-999, format!("{}: File exists", file.display()))));
    let reply = exec.op("File_Read", &path("file", &file));
    assert_eq!((reply.out("contents").as_str(), reply.out("eof").as_str()), ("one\ntwo <3\nthree\n", "1"));
    let reply = exec.op("File_Read", &(path("file", &file) + "<offset>4</offset><length>3</length>"));
    assert_eq!((reply.out("contents").as_str(), reply.out("eof").as_str()), ("two", "0"));
    let reply = exec.op("File_ReadLastN", &(path("file", &file) + "<n>2</n>"));
    assert_eq!(reply.all("line"), ["two <3", "three"]);
    let reply = exec.op("File_Copy", &(path("source", &file) + &element("destination", &copy)));
    assert_eq!(reply.out("size"), "17");
    assert_eq!(copy.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(exec.op("File_Exists", &element("path", &copy)).out("type"), "file");
    assert!(exec.op("File_Delete", &element("file", &copy)).ok());
    let reply = exec.op("File_Exists", &element("file", &copy));
    assert_eq!((reply.out("exists").as_str(), reply.all("type").len()), ("0", 0));
    // Bytes that no XML can carry, and their way back.
    let reply = exec
        .op("File_Create", &(element("path", &copy) + "<data>AAEC/w==</data><encoding>base64</encoding>"));
    assert_eq!(reply.out("size"), "4");
    assert_eq!(fs::read(&copy).unwrap(), [0, 1, 2, 255]);
    let reply = exec.op("File_Read", &element("file", &copy));
    assert_eq!((reply.out("encoding").as_str(), reply.out("contents").as_str()), ("base64", "AAEC/w=="));
}

/// B1: the contents may be a MiB of text, and one byte more closes the connection.
#[test]
fn a_mebibyte_of_contents_and_one_byte_more() {
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    let file = place.join("large");
    let document = |length: usize| {
        let contents = format!("<contents>{}</contents>", "x".repeat(length));
        request("File_Create", &(element("file", &file) + &contents))
    };
    let mut exec = instance.exec();
    assert_eq!(exec.ask(document(1 << 20)).out("size"), "1048576");
    assert_eq!(exec.op("File_Read", &element("file", &file)).out("contents").len(), 1 << 20);
    let before = file.metadata().unwrap().ino();
    exec.send(document((1 << 20) + 1));
    let text = exec.reply().error().unwrap().1;
    assert!(text.ends_with("contents larger than 1048576 bytes"), "{text}");
    assert_eq!(file.metadata().unwrap().ino(), before);
}

#[test]
fn directories_are_made_listed_measured_and_removed() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("files");
    let deep = place.join("a/b/c");
    let missing = exec.op("Directory_Make", &element("directory", &deep));
    assert!(missing.error().unwrap().1.ends_with("No such file or directory"), "{}", missing.text);
    let made = exec.op("Directory_Make", &(element("directory", &deep) + "<makeParents>1</makeParents>"));
    assert_eq!(made.out("directory"), deep.to_str().unwrap());
    assert!(exec.op("Directory_Make", &(element("path", &deep) + "<makeParents>yes</makeParents>")).ok());
    assert_eq!(exec.op("Directory_Make", &element("directory", &deep)).code(), -999);
    fs::write(deep.join("file"), vec![1; 50_000]).unwrap();
    fs::hard_link(deep.join("file"), place.join("a/again")).unwrap();
    symlink("/etc", place.join("a/link")).unwrap();
    let listed = exec.op("Directory_List", &element("directory", &place.join("a")));
    assert_eq!(listed.all("name"), ["again", "b", "link"]);
    assert_eq!(listed.all("type"), ["file", "directory", "link"]);
    let tree = exec.op("FileManager_ListDirTree", &element("directory", &place));
    assert_eq!(tree.all("name"), ["a", "again", "b", "c", "file", "link"]);
    assert!(tree.text.contains("</entry></entries></entry></entries></entry>"), "{}", tree.text);
    let shallow = element("directory", &place) + "<depth>2</depth><directoriesOnly>1</directoriesOnly>";
    assert_eq!(exec.op("FileManager_ListDirTree", &shallow).all("name"), ["a", "b"]);
    fs::File::open(deep.join("file")).unwrap().sync_all().unwrap();
    let usage = exec.op("Directory_GetSpaceUsage", &element("directory", &place));
    let allocated = |path: &Path| path.symlink_metadata().unwrap().blocks() * 512;
    let expected: u64 =
        ["a", "a/link", "a/b", "a/b/c", "a/b/c/file"].map(|name| allocated(&place.join(name))).iter().sum();
    assert_eq!(
        (usage.out("size"), usage.out("files"), usage.out("directories")),
        (expected.to_string(), "3".into(), "3".into())
    );
    let refused = exec.op("Directory_Remove", &element("directory", &place.join("a")));
    assert!(refused.error().unwrap().1.ends_with("Directory not empty"), "{}", refused.text);
    let both = list("directories", "directory", &[&place.join("a"), &place.join("nothing")]);
    let reply = exec.op("FileManager_RemoveDir", &(both + "<recursive>1</recursive>"));
    assert_eq!(reply.code(), -999);
    assert_eq!(reply.all("directory"), [place.join("a").to_str().unwrap()], "what was finished is told");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    assert!(Path::new("/etc/passwd").exists());
}

/// B7: each path gets the error that the kernel has for it.
#[test]
fn strange_paths_get_exact_errors() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("files");
    fs::write(place.join("f"), "").unwrap();
    fs::create_dir(place.join("d")).unwrap();
    let base = place.to_str().unwrap();
    let long = |total: usize| {
        let mut path = base.to_owned();
        while path.len() + 101 <= total {
            path += &format!("/{}", "p".repeat(100));
        }
        path + &"/".repeat(101)
    };
    let exactly = |total: usize| long(total).chars().take(total).collect::<String>();
    for (path, code, text) in [
        (format!("{base}/d/../f"), 0, ""),
        (format!("{base}//d//..//f"), 0, ""),
        (format!("{base}/f/"), 0, ""),
        (format!("{base}/f/.."), 0, ""),
        (format!("{base}/line\nend"), 0, ""),
        (format!("{base}/{}", "n".repeat(256)), -999, "File name too long"),
        ("relative/path".to_owned(), -3, "not an absolute path"),
        (String::new(), -3, "not an absolute path"),
        (exactly(4094), 0, ""),
        (exactly(4095), 0, ""),
    ] {
        let reply = exec.op("File_Exists", &format!("<file>{path}</file>"));
        assert_eq!(reply.code(), code, "{path}: {}", reply.text);
        assert!(code == 0 || reply.error().unwrap().1.contains(text), "{path}: {}", reply.text);
    }
    let file = |path: &str| format!("<file>{path}</file>");
    let reply = exec.op("File_Read", &file(&format!("{base}/f/")));
    assert!(reply.error().unwrap().1.ends_with("Not a directory"), "{}", reply.text);
    let named = exec.op("File_Create", &(file(&format!("{base}/line&#10;end")) + "<contents>x</contents>"));
    assert!(named.ok() && place.join("line\nend").exists(), "{}", named.text);
    for reference in ["&#0;", "&#xD800;", "&#xFFFF;", "&#1;"] {
        let mut exec = instance.exec();
        let reply = exec.op("File_Exists", &file(&format!("{base}/{reference}")));
        assert_eq!(reply.code(), -3, "{reference}: {}", reply.text);
    }
    for total in [4096, 4097] {
        let mut exec = instance.exec();
        let reply = exec.op("File_Exists", &file(&exactly(total)));
        assert!(reply.error().unwrap().1.ends_with("path too long"), "{}", reply.text);
    }
}

/// What an ordinary user may, and what the kernel forbids: no right comes from anywhere else.
#[test]
fn attributes_follow_the_kernels_rules_for_the_caller() {
    if !need_root("owners, groups and modes as an ordinary user and as root") {
        return;
    }
    let (alice, bob) = (Account::new(), Account::new());
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    let file = place.join("file");
    let mut user = Caller::new(CALLER, &instance, &alice).unix().local().server();
    let mut root = instance.exec();
    let create = |exec: &mut Exec| {
        assert!(exec.op("File_Create", &(element("file", &file) + "<overwrite>1</overwrite>")).ok());
    };
    create(&mut user);
    assert_eq!((file.metadata().unwrap().uid(), file.metadata().unwrap().gid()), (alice.uid, alice.gid));
    let owner = |name: &str| files(&[&file]) + &format!("<owner>{name}</owner>");
    let group = |name: &str| files(&[&file]) + &format!("<group>{name}</group>");
    let denied = Some((-4, format!("Permission denied: {}", file.display())));
    assert_eq!(user.op("FileManager_ChangeOwner", &owner(&bob.name)).error(), denied);
    assert_eq!(user.op("FileManager_ChangeGroup", &group(&bob.name)).error(), denied);
    assert_eq!(user.op("FileManager_ChangeOwner", &owner("nobody-of-that-name")).code(), -3);
    assert_eq!(user.op("FileManager_ChangeGroup", &group("nobody-of-that-name")).code(), -3);
    assert!(user.op("FileManager_ChangeGroup", &group(&alice.gid.to_string())).ok());
    // Set-uid is not changed by a mode, and lost with the owner, as by chown.
    fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).unwrap();
    let mode = files(&[&file]) + "<owner_mode>rwx</owner_mode><group_mode>x</group_mode><other_mode/>";
    assert!(user.op("FileManager_ChangeMode", &mode).ok());
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o6710);
    let both = format!("{}<owner_mode>rwx</owner_mode>", owner(&bob.name));
    assert!(root.op("FileManager_ChangeAttribs", &both).ok());
    assert_eq!(file.metadata().unwrap().uid(), bob.uid);
    assert_eq!(
        file.metadata().unwrap().mode() & 0o7777,
        0o710,
        "the kernel took the bits, and they stay away"
    );
    assert_eq!(user.op("FileManager_ChangeMode", &mode).error(), denied);
    // Root replaces a user's file: it stays the user's.
    create(&mut root);
    assert_eq!((file.metadata().unwrap().uid(), file.metadata().unwrap().mode() & 0o7777), (bob.uid, 0o710));
    // A sticky directory: nobody but the owner removes or replaces.
    assert_eq!(user.op("File_Delete", &element("file", &file)).error(), denied);
    let reply = user.op("File_Create", &(element("file", &file) + "<overwrite>1</overwrite>"));
    assert_eq!(reply.error(), denied);
    // A directory that may not be searched: an error, and not a no.
    let secret = place.join("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(user.op("File_Exists", &element("file", &secret.join("x"))).code(), -4);
    assert_eq!(user.op("FileManager_FileExists", &files(&[&secret.join("x")])).code(), -4);
    let usage = user.op("Directory_GetSpaceUsage", &element("directory", &place));
    assert_eq!(usage.all("warning"), [format!("{}: Permission denied", secret.display())]);
    assert_eq!(user.op("Directory_GetSpaceUsage", &element("directory", &secret)).code(), -4);
    for (operation, arguments) in [
        ("FileManager_FileCopy", files(&[&file]) + &element("destination", &place.join("copy"))),
        ("FileManager_FileMove", files(&[&file]) + &element("destination", &place.join("copy"))),
        ("File_Read", element("file", Path::new("/etc/shadow"))),
        (
            "File_Copy",
            element("source", Path::new("/etc/shadow")) + &element("destination", &place.join("copy")),
        ),
        ("FileManager_FileMakeLink", element("source", &file) + &element("link", &secret.join("link"))),
        (
            "FileManager_RemoveDir",
            list("directories", "directory", &[&bob.home]) + "<recursive>1</recursive>",
        ),
        ("Directory_Remove", element("directory", &secret) + "<recursive>1</recursive>"),
    ] {
        let reply = user.op(operation, &arguments);
        assert_eq!(reply.code(), -4, "{operation}: {}", reply.text);
    }
    assert!(!place.join("copy").exists() && bob.home.exists());
}

#[test]
fn copies_and_moves_of_small_things_are_done_at_once() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("files");
    fs::create_dir_all(place.join("tree/sub")).unwrap();
    fs::write(place.join("tree/sub/file"), "x").unwrap();
    fs::create_dir(place.join("to")).unwrap();
    let to = element("destination", &place.join("to"));
    let tree = files(&[&place.join("tree")]);
    let refused = exec.op("FileManager_FileCopy", &(tree.clone() + &to));
    assert!(refused.error().unwrap().1.ends_with("Is a directory"), "{}", refused.text);
    let copied = exec.op("FileManager_FileCopy", &(tree.clone() + &to + "<recursive>1</recursive>"));
    assert_eq!(
        (copied.out("taskId").as_str(), copied.all("file")),
        ("0", vec![place.join("to/tree").to_str().unwrap().to_owned()])
    );
    assert_eq!(fs::read(place.join("to/tree/sub/file")).unwrap(), b"x");
    let again = exec.op("FileManager_FileMove", &(tree + &to + "<overwrite>1</overwrite>"));
    assert!(again.error().unwrap().1.ends_with("File exists"), "{}", again.text);
    let moved = files(&[&place.join("to/tree")]) + &element("destination", &place.join("moved"));
    assert_eq!(exec.op("FileManager_FileMove", &moved).out("taskId"), "0");
    let two = files(&[&place.join("tree/sub/file"), &place.join("missing")]);
    let removed = exec.op("FileManager_FileRemove", &two);
    assert_eq!((removed.code(), removed.all("file").len()), (-999, 1));
    let mut names: Vec<_> = fs::read_dir(&place).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["moved", "to", "tree"]);
}

/// Both bugs of VMware Server 1.0.3 for Windows, and that they are off unless asked for.
#[test]
fn historical_bugs_are_shown_only_when_asked_for() {
    if !need_root("the historical MakeDir makes directories in the root directory") {
        return;
    }
    let large = |place: &Path| {
        fs::File::create(place.join("large")).unwrap().set_len(10 * 1024 * 1024 + 1).unwrap();
        files(&[&place.join("large")]) + &element("destination", &place.join("copy"))
    };
    let old = Setup::new().set("serverd.compat.historicBugs", true).start();
    let place = old.public_directory("files");
    let reply = old.exec().op("FileManager_FileCopy", &large(&place));
    assert_eq!(reply.error(), Some((-999, "Undefined subroutine &VMware::VMServerd::NewTask".to_owned())));
    assert!(!place.join("copy").exists());
    let first = format!("/vmsrvt-historic-{}", std::process::id());
    let parents = format!("<directory>{first}/b/c</directory><makeParents>1</makeParents>");
    let made = old.exec().op("FileManager_MakeDir", &parents);
    let glued = [first.clone(), format!("{first}b"), format!("{first}bc")];
    for path in &glued {
        fs::remove_dir(path).unwrap();
    }
    assert_eq!(made.all("directory"), glued);
    let new = Setup::new().start();
    let place = new.public_directory("files");
    let reply = new.exec().op("FileManager_FileCopy", &large(&place));
    assert_ne!(reply.out("taskId"), "0");
}
