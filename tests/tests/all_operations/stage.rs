//! Where it is asked: an instance, two accounts, every way in for each caller, and a new scene for each
//! request, so that no answer depends on an earlier request.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use tests::exec::{Exec, Reply};
use tests::{Account, Caller, Instance, Setup, eventually};

use crate::script::{Prop, Who};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// `web.vmx`. A fixed `uuid.bios` gives a fixed address of the adapter.
const VMX: &str = "#!/usr/bin/vmware\nconfig.version = \"8\"\nvirtualHW.version = \"4\"\n\
    displayName = \"Web\"\nguestOS = \"ubuntu\"\nmemsize = \"256\"\nnvram = \"web.nvram\"\n\
    uuid.bios = \"56 4d 01 02 03 04 05 06-07 08 09 0a 0b 15 ff 78\"\n\
    ethernet0.present = \"TRUE\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"web.vmdk\"\n";

/// A connection and how it was made.
pub struct Way {
    /// For messages.
    pub name: &'static str,
    /// The session.
    pub exec: Exec,
}

/// Everything that stays the same from request to request.
pub struct Stage {
    /// The instance.
    pub instance: Instance,
    /// The account whose files are worked on.
    pub owner: Account,
    /// The account without rights.
    pub other: Account,
    /// Connections of [`Who::Root`], [`Who::Owner`], [`Who::Other`].
    ways: [Vec<Way>; 3],
    /// Prepare and clean up.
    root: Exec,
    own: Exec,
    scenes: usize,
}

impl Stage {
    /// Starts an instance and logs everybody in.
    pub fn new() -> Self {
        let (owner, other) = (Account::new(), Account::new());
        let setup = Setup::new().tls().plain();
        let setup = setup.config("vmnet1.hostonlyaddress", "192.168.77.1");
        let setup = setup.config("vmnet1.hostonlynetmask", "255.255.255.0");
        let setup = setup.config("vmnet8.hostonlyaddress", "192.168.88.1");
        let instance = setup.config("vmnet8.hostonlynetmask", "255.255.255.0").start();
        networks(&instance.layout.path("/etc/vmware"));
        let way = |name, exec| Way { name, exec };
        let user = |account: &Account| {
            let caller = Caller::new(CALLER, &instance, account);
            vec![
                way("unix, LOCAL", caller.unix().local().server()),
                way("unix, PASS", instance.unix().login(account).server()),
                way("tcp, PASS", instance.tcp().login(account).server()),
                way("tls, PASS", instance.secure().login(account).server()),
            ]
        };
        let root = vec![
            way("unix, LOCAL", instance.unix().local().server()),
            way("tcp, LOCAL", instance.tcp().local().server()),
            way("tls, LOCAL", instance.secure().local().server()),
        ];
        Stage {
            ways: [root, user(&owner), user(&other)],
            root: instance.exec(),
            own: instance.unix().login(&owner).server(),
            instance,
            owner,
            other,
            scenes: 0,
        }
    }

    /// How many ways in a caller has.
    pub fn ways(&self, who: Who) -> usize {
        self.ways[who as usize].len()
    }

    /// Sets a scene, asks, and clears up. Returns the name of the way, the request and the reply, with
    /// the names of the scene.
    pub fn ask(
        &mut self,
        who: Who,
        way: usize,
        op: &str,
        props: &[Prop],
        arguments: &str,
    ) -> (&'static str, String, Reply, Scene) {
        let (scene, held) = self.set(props);
        let task = scene.task.to_string();
        let arguments = [
            ("{work}", scene.work.to_str().expect("UTF-8")),
            ("{owner}", &self.owner.name),
            ("{other}", &self.other.name),
            ("{task}", &task),
        ]
        .iter()
        .fold(arguments.to_owned(), |text, (mark, value)| text.replace(mark, value));
        let request = tests::exec::request(op, &arguments);
        let Way { name, exec } = &mut self.ways[who as usize][way];
        let reply = exec.ask(&request);
        let name = *name;
        drop(held);
        self.clear(&scene);
        (name, request, reply, scene)
    }

    fn set(&mut self, props: &[Prop]) -> (Scene, Option<Exec>) {
        self.scenes += 1;
        let work = self.owner.home.join(format!("scene-{}", self.scenes));
        let has = |prop: Prop| props.iter().any(|given| needs(*given, prop));
        files(&work);
        if has(Prop::Large) {
            let large = fs::File::create(work.join("large")).expect("room");
            large.set_len(11 << 20).expect("room");
        }
        if has(Prop::Machine) {
            let web = work.join("web");
            fs::create_dir(&web).expect("a new directory");
            fs::write(web.join("web.vmx"), VMX).expect("room");
            set_mode(&web.join("web.vmx"), 0o700);
            fs::write(web.join("vmware.log"), "Log of a machine\n").expect("room");
        }
        give(&work, &self.owner);
        let path = |name: &str| work.join(name).display().to_string();
        let config = format!("<config>{}</config>", path("web/web.vmx"));
        if has(Prop::Machine) {
            let disk = format!("<file>{}</file><size>1048576</size>", path("web/web.vmdk"));
            done(&self.own.op("CreateCOWDisk", &disk));
        }
        if has(Prop::Registered) {
            done(&self.own.op("VMRegister", &config));
        }
        let held = has(Prop::Held).then(|| {
            let mut exec = self.instance.unix().login(&self.owner).server();
            done(&exec.op("VM_INFO", &format!("{config}<connect>1</connect>")));
            exec
        });
        let mut task = 0;
        if has(Prop::Task) {
            let copy = format!("<file>{}</file><destination>{}</destination>", path("large"), path("copy"));
            task = self.own.op("FileManager_FileCopy", &copy).out("taskId").parse().expect("a number");
            finished(&mut self.own, task);
        }
        (Scene { work, task }, held)
    }

    fn clear(&mut self, scene: &Scene) {
        for task in self.root.op("TaskManager_ListTasks", "<all>1</all>").all("taskId") {
            let task = task.parse().expect("a number");
            finished(&mut self.root, task);
            done(&self.root.op("TaskManager_DeleteTask", &format!("<taskId>{task}</taskId>")));
        }
        for config in self.root.op("VM_List", "<details>0</details>").all("config") {
            done(&self.root.op("VMUnRegister", &format!("<config>{config}</config>")));
        }
        fs::remove_dir_all(&scene.work).expect("root may");
    }
}

/// What is new for each request.
pub struct Scene {
    /// A directory of the owner.
    pub work: PathBuf,
    /// The number of its task, or 0.
    pub task: u64,
}

/// Whether `given` is `wanted`, or implies it.
fn needs(given: Prop, wanted: Prop) -> bool {
    given == wanted
        || match given {
            Prop::Task => wanted == Prop::Large,
            Prop::Registered => wanted == Prop::Machine,
            Prop::Held => needs(Prop::Registered, wanted),
            Prop::Large | Prop::Machine => false,
        }
}

/// Virtual networks, from files, so that no interface of this host decides.
fn networks(etc: &Path) {
    let netmap: String = [("Bridged", 0), ("HostOnly", 1), ("NAT", 8)]
        .into_iter()
        .map(|(name, n)| format!("network{n}.name = \"{name}\"\nnetwork{n}.device = \"vmnet{n}\"\n"))
        .collect();
    for (file, text) in [
        ("netmap.conf", netmap.as_str()),
        ("locations", "answer VNET_0_INTERFACE eth0\n"),
        ("vmnet1/dhcpd/dhcpd.conf", "subnet 192.168.77.0 netmask 255.255.255.0 {}\n"),
        ("vmnet8/dhcpd/dhcpd.conf", "subnet 192.168.88.0 netmask 255.255.255.0 {}\n"),
        ("vmnet8/nat/nat.conf", "[host]\nip = 192.168.88.2/24\n"),
    ] {
        let file = etc.join(file);
        fs::create_dir_all(file.parent().expect("a directory")).expect("root may");
        fs::write(&file, text).expect("root may");
        // Everybody can read them, whatever the umask of the test is.
        set_mode(&file, 0o644);
        file.ancestors().skip(1).take_while(|above| *above != etc).for_each(|above| set_mode(above, 0o755));
    }
}

/// The files of every scene; nobody but the owner may enter.
fn files(work: &Path) {
    fs::create_dir_all(work.join("photos")).expect("root may");
    fs::write(work.join("notes.txt"), "one\ntwo\nthree & four\n").expect("room");
    fs::write(work.join("photos/1.raw"), [0, 1, 2, 255]).expect("room");
    fs::write(work.join(".hidden"), "").expect("room");
    symlink("notes.txt", work.join("latest")).expect("room");
    for (name, mode) in
        [("", 0o700), ("photos", 0o750), ("notes.txt", 0o644), ("photos/1.raw", 0o640), (".hidden", 0o600)]
    {
        set_mode(&work.join(name), mode);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

fn give(path: &Path, account: &Account) {
    lchown(path, Some(account.uid), Some(account.gid)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("readable") {
            give(&entry.expect("readable").path(), account);
        }
    }
}

fn done(reply: &Reply) {
    assert!(reply.ok(), "{}", reply.text);
}

fn finished(exec: &mut Exec, task: u64) {
    eventually("the task ends", || {
        let status = exec.op("TaskManager_StatusOfTask", &format!("<taskId>{task}</taskId>"));
        let running = ["queued", "running"].contains(&status.all("state")[0].as_str());
        (!running).then_some(())
    });
}
