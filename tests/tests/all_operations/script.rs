//! What is asked: one request for every operation, and a few more where the answer teaches something.
//!
//! `{work}` is a directory of the owner that is new for every request, `{owner}`, `{other}` the names
//! of the two accounts, `{task}` the number of the task that [`Prop::Task`] made.

/// Something that must be there before the request. Each implies what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prop {
    /// `large`, 11 MiB: too large to be copied at once.
    Large,
    /// A task of the owner that has copied it.
    Task,
    /// `web/web.vmx`, a machine of the owner with a disk and a log, and nobody else's right on it.
    Machine,
    /// The owner has registered it.
    Registered,
    /// The owner holds it as an object, as the C library does.
    Held,
}

/// The three who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root.
    Root,
    /// An ordinary user; the files and the machine are his.
    Owner,
    /// An ordinary user without any right on them.
    Other,
}

/// The request of an operation that all three make, over each way in.
pub struct Entry {
    /// Name of the operation.
    pub op: &'static str,
    /// What must be there.
    pub props: &'static [Prop],
    /// The children of `in`.
    pub arguments: &'static str,
}

/// One more request, for the page of examples.
pub struct Also {
    /// Name of the operation.
    pub op: &'static str,
    /// Heading on the page.
    pub title: &'static str,
    /// Who asks.
    pub who: Who,
    /// What must be there.
    pub props: &'static [Prop],
    /// The children of `in`.
    pub arguments: &'static str,
}

const fn ask(op: &'static str, props: &'static [Prop], arguments: &'static str) -> Entry {
    Entry { op, props, arguments }
}

const fn also(
    op: &'static str,
    title: &'static str,
    who: Who,
    props: &'static [Prop],
    arguments: &'static str,
) -> Also {
    Also { op, title, who, props, arguments }
}

const WEB: &str = "<config>{work}/web/web.vmx</config>";
const WORK: &str = "<directory>{work}</directory>";
const NOTES: &str = "<file>{work}/notes.txt</file>";
const TASK: &str = "<taskId>{task}</taskId>";

/// One entry for each row of the table, in its order.
pub const SCRIPT: &[Entry] = &[
    ask(
        "CreateCOWDisk",
        &[],
        "<file>{work}/disk.vmdk</file><size>10485760</size><adapterType>lsilogic</adapterType>\
         <type>twoGbMaxExtentSparse</type>",
    ),
    ask("Directory_GetSpaceUsage", &[], WORK),
    ask("Directory_List", &[], WORK),
    ask(
        "Directory_Make",
        &[],
        "<directory>{work}/new</directory><owner_mode>rwx</owner_mode><group_mode>r-x</group_mode>\
         <other_mode>---</other_mode>",
    ),
    ask("Directory_Remove", &[], "<directory>{work}/photos</directory><recursive>1</recursive>"),
    ask(
        "FileManager_ChangeAttribs",
        &[],
        "<files><file>{work}/photos</file></files><group>{owner}</group><owner_mode>rwx</owner_mode>\
         <group_mode>r-x</group_mode><other_mode/><recursive>1</recursive>",
    ),
    ask("FileManager_ChangeGroup", &[], "<files><file>{work}/notes.txt</file></files><group>{owner}</group>"),
    ask(
        "FileManager_ChangeMode",
        &[],
        "<files><file>{work}/notes.txt</file></files><owner_mode>rw</owner_mode><other_mode/>",
    ),
    ask("FileManager_ChangeOwner", &[], "<files><file>{work}/notes.txt</file></files><owner>{other}</owner>"),
    ask(
        "FileManager_FileCopy",
        &[],
        "<files><file>{work}/notes.txt</file></files><destination>{work}/photos</destination>",
    ),
    ask(
        "FileManager_FileExists",
        &[],
        "<files><file>{work}/notes.txt</file><file>{work}/nothing</file></files>",
    ),
    ask("FileManager_FileMakeLink", &[], "<source>{work}/notes.txt</source><link>{work}/again</link>"),
    ask(
        "FileManager_FileMove",
        &[],
        "<files><file>{work}/notes.txt</file></files><destination>{work}/moved.txt</destination>",
    ),
    ask(
        "FileManager_FileRemove",
        &[],
        "<files><file>{work}/notes.txt</file><file>{work}/latest</file></files>",
    ),
    ask("FileManager_GetHomeDir", &[], "<user>{owner}</user>"),
    ask("FileManager_GetParentDir", &[], "<directory>{work}/photos/</directory>"),
    ask("FileManager_ListDir", &[], "<directory>{work}</directory><showHidden>0</showHidden>"),
    ask("FileManager_ListDirTree", &[], "<directory>{work}</directory><depth>2</depth>"),
    ask(
        "FileManager_MakeDir",
        &[],
        "<directories><directory>{work}/a/b/c</directory></directories><owner_mode>rwx</owner_mode>\
         <group_mode>rwx</group_mode><other_mode>rwx</other_mode><makeParents>1</makeParents>",
    ),
    ask(
        "FileManager_RemoveDir",
        &[],
        "<directories><directory>{work}/photos</directory></directories><recursive>1</recursive>",
    ),
    ask("File_Copy", &[], "<source>{work}/notes.txt</source><destination>{work}/copy.txt</destination>"),
    ask(
        "File_Create",
        &[],
        "<file>{work}/new.txt</file><contents>Fish &amp; chips\n</contents><owner_mode>rw</owner_mode>\
         <group_mode>r</group_mode><other_mode/>",
    ),
    ask("File_Delete", &[], NOTES),
    ask("File_Exists", &[], NOTES),
    ask("File_Read", &[], NOTES),
    ask("File_ReadLastN", &[], "<file>{work}/notes.txt</file><n>2</n>"),
    ask("GSXHostInfo_GetDiskSpace", &[], "<directory>/</directory>"),
    ask("GSXHostInfo_Query", &[Prop::Registered], ""),
    ask("Host_GetBridgedNet", &[], ""),
    ask("Host_GetHostOnlyNet", &[], ""),
    ask("Host_GetVirtualNet", &[], ""),
    ask("Security_ActivateConfig", &[], "<managementSsl>0</managementSsl>"),
    ask(
        "Security_CreateCertificate",
        &[],
        "<commonName>vms.example.org</commonName><overwrite>1</overwrite>",
    ),
    ask("Security_GetConfig", &[], ""),
    ask("TaskManager_DeleteTask", &[Prop::Task], TASK),
    ask("TaskManager_StatusOfTask", &[Prop::Task], TASK),
    ask("TaskManager_StopTask", &[Prop::Task], TASK),
    ask("VMConfigDefaults_GetAll", &[], ""),
    ask("VMConfigDefaults_GetConfigVersion", &[], ""),
    ask("VMDeleteEdit_DeleteVM", &[Prop::Registered], WEB),
    ask("VMDeleteInfo_DeleteVMInfo", &[Prop::Registered], WEB),
    ask("VMRegister", &[Prop::Machine], WEB),
    ask("VMServerd_GetConnectedVMList", &[Prop::Registered], ""),
    ask("VMServerd_GetOperationTable", &[], ""),
    ask("VMServerd_GetProductInfo", &[], ""),
    ask("VMServerd_GetRequestCount", &[], ""),
    ask("VMServerd_IsAdminUser", &[], ""),
    ask("VMUnRegister", &[Prop::Registered], WEB),
    ask("VM_GetLastNEvents", &[Prop::Registered], WEB),
    ask("VM_INFO", &[Prop::Registered], WEB),
    ask("VM_Who", &[Prop::Held], WEB),
    ask("dec", &[], "<number>42</number>"),
    ask("div", &[], "<dividend>84</dividend><divisor>2</divisor>"),
    ask("inc", &[], "<number>42</number>"),
    // Extensions. Whether a machine can be started depends on the host: those requests are wrong ones.
    ask("TaskManager_ListTasks", &[Prop::Task], "<all>1</all>"),
    ask("VMServerd_GetMetrics", &[], ""),
    ask("VMServerd_GetResource", &[], "<name>system.cpu.number</name>"),
    ask("VMServerd_WaitForEvents", &[], "<timeout>0</timeout>"),
    ask(
        "VM_AnswerQuestion",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><id>1</id><choice>0</choice>",
    ),
    ask(
        "VM_Create",
        &[],
        "<displayName>New</displayName><config>{work}/New/New.vmx</config><guestOS>ubuntu</guestOS>\
         <memoryMb>128</memoryMb><diskSize>1073741824</diskSize>",
    ),
    ask(
        "VM_CreateSnapshot",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><memory>perhaps</memory>",
    ),
    ask(
        "VM_DeviceConnect",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><device>ethernet0</device>",
    ),
    ask(
        "VM_DeviceDisconnect",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><device>ide0:0</device>",
    ),
    ask(
        "VM_DeviceIsConnected",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><device>ethernet0</device>",
    ),
    ask("VM_GetCapabilities", &[Prop::Registered], WEB),
    ask("VM_GetConfig", &[Prop::Registered], "<config>{work}/web/web.vmx</config><key>memsize</key>"),
    ask("VM_GetGuestInfo", &[Prop::Registered], "<config>{work}/web/web.vmx</config><key>ip</key>"),
    ask("VM_GetHeartbeat", &[Prop::Registered], WEB),
    ask("VM_GetProductInfo", &[Prop::Registered], WEB),
    ask("VM_GetQuestion", &[Prop::Registered], WEB),
    ask("VM_GetRemoteConnections", &[Prop::Registered], WEB),
    ask("VM_GetResource", &[Prop::Registered], "<config>{work}/web/web.vmx</config><name>cpu.shares</name>"),
    ask("VM_GetRunAsUser", &[Prop::Registered], WEB),
    ask("VM_GetState", &[Prop::Registered], WEB),
    ask("VM_GetToolsLastActive", &[Prop::Registered], WEB),
    ask("VM_GetUptime", &[Prop::Registered], WEB),
    ask("VM_HasSnapshot", &[Prop::Registered], WEB),
    ask("VM_List", &[Prop::Registered], ""),
    ask("VM_Pause", &[Prop::Registered], WEB),
    ask(
        "VM_RemoveAllSnapshots",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><background>perhaps</background>",
    ),
    ask("VM_Reset", &[Prop::Registered], WEB),
    ask("VM_Resume", &[Prop::Registered], WEB),
    ask(
        "VM_RevertToSnapshot",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><snapshotId>first</snapshotId>",
    ),
    ask("VM_SaveScreenshot", &[Prop::Registered], WEB),
    ask("VM_SendKeys", &[Prop::Registered], "<config>{work}/web/web.vmx</config><text>ls\n</text>"),
    ask("VM_SerialRead", &[Prop::Registered], WEB),
    ask(
        "VM_SerialWrite",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><contents>ls\n</contents>",
    ),
    ask(
        "VM_SetConfig",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><settings><setting><key>memsize</key><value>512</value></setting><setting><key>annotation</key><value>Web server</value></setting></settings>",
    ),
    ask(
        "VM_SetGuestInfo",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><key>role</key><value>web</value>",
    ),
    ask(
        "VM_SetResource",
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><name>cpu.shares</name><value>1000</value>",
    ),
    ask("VM_Start", &[Prop::Registered], "<config>{work}/web/web.vmx</config><mode>gently</mode>"),
    ask("VM_Stop", &[Prop::Registered], "<config>{work}/web/web.vmx</config><mode>soft</mode>"),
    ask("VM_Suspend", &[Prop::Registered], WEB),
];

/// What else is shown.
pub const ALSO: &[Also] = &[
    also(
        "CreateCOWDisk",
        "A child of a disk",
        Who::Owner,
        &[Prop::Machine],
        "<file>{work}/web/child.vmdk</file><parent>web.vmdk</parent>",
    ),
    also(
        "CreateCOWDisk",
        "A file that exists",
        Who::Owner,
        &[Prop::Machine],
        "<file>{work}/web/web.vmdk</file><size>1048576</size>",
    ),
    also("Directory_Make", "It exists", Who::Owner, &[], "<directory>{work}/photos</directory>"),
    also("Directory_Remove", "Not empty", Who::Owner, &[], "<directory>{work}/photos</directory>"),
    also(
        "FileManager_ChangeOwner",
        "A user that does not exist",
        Who::Root,
        &[],
        "<files><file>{work}/notes.txt</file></files><owner>nobody-of-that-name</owner>",
    ),
    also(
        "FileManager_FileCopy",
        "More than 10 MiB: a task does it",
        Who::Owner,
        &[Prop::Large],
        "<files><file>{work}/large</file></files><destination>{work}/photos</destination>",
    ),
    also(
        "FileManager_FileCopy",
        "A directory without `recursive`",
        Who::Owner,
        &[],
        "<files><file>{work}/photos</file></files><destination>{work}/copies</destination>",
    ),
    also(
        "FileManager_FileRemove",
        "The second of two fails: `out` tells what was done",
        Who::Owner,
        &[],
        "<files><file>{work}/notes.txt</file><file>{work}/nothing</file></files>",
    ),
    also(
        "FileManager_MakeDir",
        "The parents are missing",
        Who::Owner,
        &[],
        "<directories><directory>{work}/a/b/c</directory></directories><makeParents>0</makeParents>",
    ),
    also(
        "File_Create",
        "A file that exists",
        Who::Owner,
        &[],
        "<file>{work}/notes.txt</file><contents>x</contents>",
    ),
    also("File_Exists", "There is nothing", Who::Owner, &[], "<file>{work}/nothing</file>"),
    also("File_Read", "Bytes that XML cannot carry", Who::Owner, &[], "<file>{work}/photos/1.raw</file>"),
    also("File_Read", "A directory", Who::Owner, &[], "<file>{work}/photos</file>"),
    also(
        "File_ReadLastN",
        "A number out of its range",
        Who::Owner,
        &[],
        "<file>{work}/notes.txt</file><n>0</n>",
    ),
    also("TaskManager_StatusOfTask", "No number at all", Who::Owner, &[], ""),
    also(
        "VMDeleteEdit_DeleteVM",
        "A file that is not the machine's",
        Who::Owner,
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><files><file>/etc/hostname</file></files>",
    ),
    also("VMServerd_IsAdminUser", "Asked by an administrator", Who::Root, &[], ""),
    also("VMRegister", "It is registered already", Who::Owner, &[Prop::Registered], WEB),
    also("VMRegister", "No machine there", Who::Owner, &[], WEB),
    also("VMUnRegister", "It is not registered", Who::Owner, &[Prop::Machine], WEB),
    also("VM_INFO", "It is not registered", Who::Owner, &[Prop::Machine], WEB),
    also(
        "VM_Create",
        "The file exists",
        Who::Owner,
        &[Prop::Machine],
        "<displayName>Web</displayName><config>{work}/web/web.vmx</config>",
    ),
    also("VM_List", "Paths only", Who::Owner, &[Prop::Registered], "<details>0</details>"),
    also("VM_GetConfig", "All keys", Who::Owner, &[Prop::Registered], WEB),
    also(
        "VM_GetConfig",
        "A key that is not there",
        Who::Owner,
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><key>sound.present</key>",
    ),
    also(
        "VM_SetConfig",
        "A key that can be none: nothing is changed",
        Who::Owner,
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><settings><setting><key>annotation</key><value>x</value></setting>\
         <setting><key>two words</key><value>x</value></setting></settings>",
    ),
    also(
        "VM_DeviceConnect",
        "A device that the machine does not have",
        Who::Owner,
        &[Prop::Registered],
        "<config>{work}/web/web.vmx</config><device>floppy1</device>",
    ),
    also(
        "VMServerd_GetResource",
        "A figure that there is not",
        Who::Owner,
        &[],
        "<name>system.disk.size</name>",
    ),
    also("div", "By zero", Who::Owner, &[], "<dividend>84</dividend><divisor>0</divisor>"),
    also("inc", "No number", Who::Owner, &[], "<number>forty-two</number>"),
];
