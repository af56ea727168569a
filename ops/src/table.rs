//! The operation table: one ordered slice that everything else walks over.
//!
//! ```text
//!   HISTORICAL   54 rows of VMware Server 1.0.3, a golden copy: names, handlers, access, order
//!       │ a test proves that the rows without the extension flag are taken from it, in its order
//!       ▼
//!   TABLE        the rows this server has: historical ones first, then extensions
//!       ├─ lookup()     name in a request        -> OpId
//!       ├─ listing()    the start-up log
//!       ├─ docs::*      reference pages, fuzz dictionary
//!       └─ VMServerd_GetOperationTable
//! ```
//!
//! Adding an operation is its type in the file of its original module and one line in [`TABLE`].

use crate::error::Fault;
use crate::reader::Input;
use crate::{
    Operation, config_defaults, directory, disk, event_log, file, file_manager, host, host_info, machine,
    main_ops, security, server, task_manager, vm_config, vm_console, vm_delete, vm_facts, vm_guest, vm_info,
    vm_list, vm_power, vm_question, vm_snapshot, vmserverd,
};

/// Who may ask for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any logged-in user, within that user's rights in the operating system.
    AuthUser,
    /// Administrators only.
    RootOnly,
}

impl Access {
    /// The word of the original listing: `authuser` or `rootonly`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Access::AuthUser => "authuser",
            Access::RootOnly => "rootonly",
        }
    }
}

/// Where an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// In the session process, which has the caller's own user and groups.
    Session,
    /// In the core of the server, on what all users share.
    Core,
    /// As long work in the session process; the reply carries a task id.
    Task,
}

impl Runs {
    /// The word used in the documentation: `session`, `core` or `task`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Runs::Session => "session",
            Runs::Core => "core",
            Runs::Task => "task",
        }
    }
}

/// What an operation leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Something: files, machines, tasks or settings are other than before. The audit records who asked.
    Changes = 1,
    /// Nothing but its reply.
    Reads = 2,
}

/// How a field stands in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One element with a value or with nested fields.
    Element,
    /// A wrapper element with any number of `item` elements, at most `max` of them in a request. A
    /// reply may have the items without the wrapper, whose name is empty then.
    List {
        /// Name of one item.
        item: &'static str,
        /// Most items that a request may give.
        max: usize,
    },
    /// No element of its own: the nested fields stand in its place.
    Flat,
    /// An attribute of the surrounding element.
    Attribute,
    /// The text of the surrounding element itself.
    Content,
}

/// One parameter of a request or one value of a reply, described for people and for programs.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Element or attribute name; empty for [`Shape::Flat`], [`Shape::Content`], and a list without a
    /// wrapper.
    pub name: &'static str,
    /// Type of the value, or of one item of a list: `integer`, `path`, `boolean`, `group`, ...
    pub kind: &'static str,
    /// How it stands in the document.
    pub shape: Shape,
    /// Whether a request must give it, or whether a reply always has it.
    pub required: bool,
    /// The value that an absent parameter has.
    pub default: Option<&'static str>,
    /// Other names under which a request may give it.
    pub aliases: &'static [&'static str],
    /// Smallest and largest value of a number, both included.
    pub range: Option<(i64, i64)>,
    /// Whether the element is known from VMware Server 1.0.3; otherwise it is this project's choice.
    pub historical: bool,
    /// What it means.
    pub doc: &'static str,
    /// Fields inside it, for groups, flat groups and lists of groups.
    pub nested: &'static [Field],
    /// Whether a text would be accepted as its value.
    pub accepts: fn(&str) -> bool,
}

impl Field {
    /// The starting point of a declaration: a required element that accepts any text.
    pub const BASE: Field = Field {
        name: "",
        kind: "text",
        shape: Shape::Element,
        required: true,
        default: None,
        aliases: &[],
        range: None,
        historical: false,
        doc: "",
        nested: &[],
        accepts: |_| true,
    };

    /// The type in words: `path`, or `list of path`.
    #[must_use]
    pub fn type_name(&self) -> String {
        match self.shape {
            Shape::List { .. } => format!("list of {}", self.kind),
            _ => self.kind.to_owned(),
        }
    }

    /// The field's place below `prefix`, which is empty or ends in `/`: `number`, `product/title`,
    /// `directories/directory` for the items of a list, `product@id` for an attribute, `error` for
    /// the text of `error` itself.
    #[must_use]
    pub fn path(&self, prefix: &str) -> String {
        let parent = prefix.trim_end_matches('/');
        match self.shape {
            Shape::Attribute => format!("{parent}@{}", self.name),
            Shape::Content => parent.to_owned(),
            Shape::List { item, .. } if self.name.is_empty() => format!("{prefix}{item}"),
            Shape::List { item, .. } => format!("{prefix}{}/{item}", self.name),
            Shape::Element | Shape::Flat => format!("{prefix}{}", self.name),
        }
    }
}

/// Calls `visit` for every field in document order; flat groups are replaced by their own fields.
pub fn visit(fields: &'static [Field], visit_one: &mut dyn FnMut(&'static Field)) {
    for field in fields {
        if field.shape == Shape::Flat {
            visit(field.nested, visit_one);
        } else {
            visit_one(field);
        }
    }
}

/// A parameter whose text may be larger than the limit of a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeText {
    /// Name of the parameter.
    pub field: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// Most bytes of its text, as sent.
    pub max: usize,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name in `op`.
    pub name: &'static str,
    /// Full handler path, such as `VMware::VMServerd::FileManager::MakeDir_Handler`.
    pub handler: &'static str,
    /// Who may ask for it.
    pub access: Access,
    /// Where it runs.
    pub runs: Runs,
    /// What it leaves behind.
    pub effect: Effect,
    /// Whether this project added it to the historical table.
    pub extension: bool,
    /// One line that says what it does.
    pub summary: &'static str,
    /// The rest of its description; may be empty. Paragraphs are separated by a blank line.
    pub description: &'static str,
    /// Parameters, in document order.
    pub request: &'static [Field],
    /// Values of the reply, in document order.
    pub reply: &'static [Field],
    /// Parameter that raises the size limit of the request.
    pub large: Option<LargeText>,
    /// Reads a request of this operation and throws the value away: typed checks without a handler.
    pub check: fn(Input<'_>) -> Result<(), Fault>,
}

/// All operations of this server. Historical rows in the byte order of the original table, then
/// extensions in byte order.
pub static TABLE: &[Row] = &[
    disk::CreateCowDisk::ROW,
    directory::GetSpaceUsage::ROW,
    directory::List::ROW,
    directory::Make::ROW,
    directory::Remove::ROW,
    file_manager::ChangeAttribs::ROW,
    file_manager::ChangeGroup::ROW,
    file_manager::ChangeMode::ROW,
    file_manager::ChangeOwner::ROW,
    file_manager::FileCopy::ROW,
    file_manager::FileExists::ROW,
    file_manager::FileMakeLink::ROW,
    file_manager::FileMove::ROW,
    file_manager::FileRemove::ROW,
    file_manager::GetHomeDir::ROW,
    file_manager::GetParentDir::ROW,
    file_manager::ListDir::ROW,
    file_manager::ListDirTree::ROW,
    file_manager::MakeDir::ROW,
    file_manager::RemoveDir::ROW,
    file::Copy::ROW,
    file::Create::ROW,
    file::Delete::ROW,
    file::Exists::ROW,
    file::Read::ROW,
    file::ReadLastN::ROW,
    host_info::GetDiskSpace::ROW,
    host_info::Query::ROW,
    host::GetBridgedNet::ROW,
    host::GetHostOnlyNet::ROW,
    host::GetVirtualNet::ROW,
    security::ActivateConfig::ROW,
    security::CreateCertificate::ROW,
    security::GetConfig::ROW,
    task_manager::DeleteTask::ROW,
    task_manager::StatusOfTask::ROW,
    task_manager::StopTask::ROW,
    config_defaults::GetAll::ROW,
    config_defaults::GetConfigVersion::ROW,
    vm_delete::Delete::ROW,
    vm_delete::DeleteInfo::ROW,
    vm_list::Register::ROW,
    vmserverd::GetConnectedVmList::ROW,
    vmserverd::GetOperationTable::ROW,
    vmserverd::GetProductInfo::ROW,
    vmserverd::GetRequestCount::ROW,
    vmserverd::IsAdminUser::ROW,
    vm_list::Unregister::ROW,
    event_log::GetLastNEvents::ROW,
    vm_info::Info::ROW,
    vm_info::Who::ROW,
    main_ops::Dec::ROW,
    main_ops::Div::ROW,
    main_ops::Inc::ROW,
    // Extensions, in byte order.
    task_manager::ListTasks::ROW,
    server::GetMetrics::ROW,
    server::GetResource::ROW,
    server::WaitForEvents::ROW,
    vm_question::AnswerQuestion::ROW,
    machine::Create::ROW,
    vm_snapshot::CreateSnapshot::ROW,
    vm_question::DeviceConnect::ROW,
    vm_question::DeviceDisconnect::ROW,
    vm_question::DeviceIsConnected::ROW,
    vm_facts::GetCapabilities::ROW,
    vm_config::GetConfig::ROW,
    vm_guest::GetGuestInfo::ROW,
    vm_facts::GetHeartbeat::ROW,
    vm_facts::GetProductInfo::ROW,
    vm_question::GetQuestion::ROW,
    vm_facts::GetRemoteConnections::ROW,
    vm_config::GetResource::ROW,
    vm_facts::GetRunAsUser::ROW,
    vm_facts::GetState::ROW,
    vm_facts::GetToolsLastActive::ROW,
    vm_facts::GetUptime::ROW,
    vm_snapshot::HasSnapshot::ROW,
    machine::List::ROW,
    vm_power::Pause::ROW,
    vm_snapshot::RemoveAllSnapshots::ROW,
    vm_power::Reset::ROW,
    vm_power::Resume::ROW,
    vm_snapshot::RevertToSnapshot::ROW,
    vm_console::SaveScreenshot::ROW,
    vm_console::SendKeys::ROW,
    vm_console::SerialRead::ROW,
    vm_console::SerialWrite::ROW,
    vm_config::SetConfig::ROW,
    vm_guest::SetGuestInfo::ROW,
    vm_config::SetResource::ROW,
    vm_power::Start::ROW,
    vm_power::Stop::ROW,
    vm_power::Suspend::ROW,
];

/// Position of a row in [`TABLE`]; the index of every per-operation array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u16);

impl OpId {
    /// The index into [`TABLE`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The row. Ids come from [`lookup`] and [`all`] only, so there always is one.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // the number is private and always below TABLE.len()
    pub fn row(self) -> &'static Row {
        &TABLE[self.index()]
    }
}

/// The ids of all operations, in table order.
pub fn all() -> impl Iterator<Item = OpId> {
    (0..TABLE.len()).map(|index| OpId(index as u16))
}

/// Number of places in the hash index; a power of two, at least twice the number of operations.
const PLACES: usize = 256;

/// Marks a free place in the index.
const FREE: u16 = u16::MAX;

/// A cheap mix of length, both ends and the middle of a name. Quality matters little: a collision
/// costs one more comparison.
#[allow(clippy::indexing_slicing)] // evaluated at compile time too, so plain indices below len
const fn place(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let mixed = len
        .wrapping_mul(31)
        .wrapping_add(name[0] as usize)
        .wrapping_mul(31)
        .wrapping_add(name[len - 1] as usize)
        .wrapping_mul(31)
        .wrapping_add(name[len / 2] as usize)
        .wrapping_mul(31)
        .wrapping_add(name[len - 1 - len / 4] as usize);
    mixed.wrapping_mul(0x9E37_79B1) >> 7 & (PLACES - 1)
}

/// Open addressing, filled by the compiler.
#[allow(clippy::indexing_slicing)] // evaluated at compile time: a bad index stops the build
static INDEX: [u16; PLACES] = {
    assert!(TABLE_LEN * 2 <= PLACES);
    let mut index = [FREE; PLACES];
    let mut row = 0;
    while row < TABLE_LEN {
        let mut at = place(TABLE[row].name.as_bytes());
        while index[at] != FREE {
            at = (at + 1) & (PLACES - 1);
        }
        index[at] = row as u16;
        row += 1;
    }
    index
};

const TABLE_LEN: usize = TABLE.len();

/// The operation of that exact name.
#[must_use]
pub fn lookup(name: &str) -> Option<OpId> {
    let mut at = place(name.as_bytes());
    loop {
        let &number = INDEX.get(at)?;
        let row = TABLE.get(usize::from(number))?;
        if row.name == name {
            return Some(OpId(number));
        }
        at = (at + 1) & (PLACES - 1);
    }
}

/// The parameter of `operation` that may be larger than a whole request, if it declares one.
#[must_use]
pub fn large_text(operation: &str) -> Option<&'static LargeText> {
    lookup(operation).and_then(|id| id.row().large.as_ref())
}

/// The table as the start-up log shows it, one line per element, without time stamps.
#[must_use]
pub fn listing() -> Vec<String> {
    let mut lines = vec!["Operations defined in function table:".to_owned()];
    for row in TABLE.iter().filter(|row| !row.extension) {
        lines.push(format!("Op {} -> {} ({})", row.name, row.handler, row.access.word()));
    }
    let mut extensions = TABLE.iter().filter(|row| row.extension).peekable();
    if extensions.peek().is_some() {
        lines.push("Extension operations of this server:".to_owned());
    }
    for row in extensions {
        lines.push(format!("Op {} -> {} ({}, extension)", row.name, row.handler, row.access.word()));
    }
    lines
}

/// The table of VMware Server 1.0.3: name, full handler path, access class, in plain byte order.
///
/// This is history, not configuration: it is compared with [`TABLE`] by tests and never changes.
pub const HISTORICAL: [(&str, &str, Access); 54] = {
    use Access::{AuthUser, RootOnly};
    [
        ("CreateCOWDisk", "VMware::VMServerd::Disk::CreateCOWDisk_Handler", AuthUser),
        ("Directory_GetSpaceUsage", "VMware::VMServerd::Handlers::Directory_GetSpaceUsage_Handler", AuthUser),
        ("Directory_List", "VMware::VMServerd::Handlers::Directory_List_Handler", AuthUser),
        ("Directory_Make", "VMware::VMServerd::Handlers::Directory_Make_Handler", AuthUser),
        ("Directory_Remove", "VMware::VMServerd::Handlers::Directory_Remove_Handler", AuthUser),
        ("FileManager_ChangeAttribs", "VMware::VMServerd::FileManager::ChangeAttribs_Handler", AuthUser),
        ("FileManager_ChangeGroup", "VMware::VMServerd::FileManager::ChangeGroup_Handler", AuthUser),
        ("FileManager_ChangeMode", "VMware::VMServerd::FileManager::ChangeMode_Handler", AuthUser),
        ("FileManager_ChangeOwner", "VMware::VMServerd::FileManager::ChangeOwner_Handler", AuthUser),
        ("FileManager_FileCopy", "VMware::VMServerd::FileManager::FileCopy_Handler", AuthUser),
        ("FileManager_FileExists", "VMware::VMServerd::FileManager::FileExists_Handler", AuthUser),
        ("FileManager_FileMakeLink", "VMware::VMServerd::FileManager::FileMakeLink_Handler", AuthUser),
        ("FileManager_FileMove", "VMware::VMServerd::FileManager::FileMove_Handler", AuthUser),
        ("FileManager_FileRemove", "VMware::VMServerd::FileManager::FileRemove_Handler", AuthUser),
        ("FileManager_GetHomeDir", "VMware::VMServerd::FileManager::GetHomeDir_Handler", AuthUser),
        ("FileManager_GetParentDir", "VMware::VMServerd::FileManager::GetParentDir_Handler", AuthUser),
        ("FileManager_ListDir", "VMware::VMServerd::FileManager::ListDir_Handler", AuthUser),
        ("FileManager_ListDirTree", "VMware::VMServerd::FileManager::ListDirTree_Handler", AuthUser),
        ("FileManager_MakeDir", "VMware::VMServerd::FileManager::MakeDir_Handler", AuthUser),
        ("FileManager_RemoveDir", "VMware::VMServerd::FileManager::RemoveDir_Handler", AuthUser),
        ("File_Copy", "VMware::VMServerd::Handlers::File_Copy_Handler", AuthUser),
        ("File_Create", "VMware::VMServerd::Handlers::File_Create_Handler", AuthUser),
        ("File_Delete", "VMware::VMServerd::Handlers::File_Delete_Handler", AuthUser),
        ("File_Exists", "VMware::VMServerd::Handlers::File_Exists_Handler", AuthUser),
        ("File_Read", "VMware::VMServerd::Handlers::File_Read_Handler", AuthUser),
        ("File_ReadLastN", "VMware::VMServerd::Handlers::File_ReadLastN_Handler", AuthUser),
        ("GSXHostInfo_GetDiskSpace", "VMware::VMServerd::GSXHostInfo::GetDiskSpace_Handler", AuthUser),
        ("GSXHostInfo_Query", "VMware::VMServerd::GSXHostInfo::Query_Handler", AuthUser),
        ("Host_GetBridgedNet", "VMware::VMServerd::Handlers::Host_GetBridgedNet_Handler", AuthUser),
        ("Host_GetHostOnlyNet", "VMware::VMServerd::Handlers::Host_GetHostOnlyNet_Handler", AuthUser),
        ("Host_GetVirtualNet", "VMware::VMServerd::Handlers::Host_GetVirtualNet_Handler", AuthUser),
        ("Security_ActivateConfig", "VMware::VMServerd::SecurityEdit::ActivateConfig_Handler", RootOnly),
        (
            "Security_CreateCertificate",
            "VMware::VMServerd::SecurityEdit::CreateCertificate_Handler",
            RootOnly,
        ),
        ("Security_GetConfig", "VMware::VMServerd::SecurityEdit::GetConfig_Handler", RootOnly),
        ("TaskManager_DeleteTask", "VMware::VMServerd::TaskManager::DeleteTask_Handler", AuthUser),
        ("TaskManager_StatusOfTask", "VMware::VMServerd::TaskManager::StatusOfTask_Handler", AuthUser),
        ("TaskManager_StopTask", "VMware::VMServerd::TaskManager::StopTask_Handler", AuthUser),
        ("VMConfigDefaults_GetAll", "VMware::VMServerd::VMConfigDefaults::GetAll_Handler", AuthUser),
        (
            "VMConfigDefaults_GetConfigVersion",
            "VMware::VMServerd::VMConfigDefaults::GetConfigVersion_Handler",
            AuthUser,
        ),
        ("VMDeleteEdit_DeleteVM", "VMware::VMServerd::VMDeleteEdit::DeleteVM_Handler", AuthUser),
        ("VMDeleteInfo_DeleteVMInfo", "VMware::VMServerd::VMDeleteInfo::DeleteVMInfo_Handler", AuthUser),
        ("VMRegister", "VMware::VMServerd::VMList::Register_Handler", AuthUser),
        ("VMServerd_GetConnectedVMList", "VMware::VMServerd::GetConnectedVMList_Handler", AuthUser),
        ("VMServerd_GetOperationTable", "VMware::VMServerd::GetOperationTable_Handler", AuthUser),
        ("VMServerd_GetProductInfo", "VMware::VMServerd::GetProductInfo_Handler", AuthUser),
        ("VMServerd_GetRequestCount", "VMware::VMServerd::GetRequestCount_Handler", AuthUser),
        ("VMServerd_IsAdminUser", "VMware::VMServerd::IsAdminUser_Handler", AuthUser),
        ("VMUnRegister", "VMware::VMServerd::VMList::UnRegister_Handler", AuthUser),
        ("VM_GetLastNEvents", "VMware::VMServerd::EventLog::VM_GetLastNEvents_Handler", AuthUser),
        ("VM_INFO", "VMware::VMServerd::Info::VM_Info_Handler", AuthUser),
        ("VM_Who", "VMware::VMServerd::Who::VM_Who_Handler", AuthUser),
        ("dec", "main::decrement", AuthUser),
        ("div", "main::divide", AuthUser),
        ("inc", "main::increment", AuthUser),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_historical_rows_are_those_of_the_original_in_its_order() {
        let rows = TABLE.iter().filter(|row| !row.extension);
        let ours: Vec<_> = rows.map(|row| (row.name, row.handler, row.access)).collect();
        assert_eq!(ours, HISTORICAL);
    }

    #[test]
    fn the_golden_table_is_in_byte_order_with_three_rows_for_administrators() {
        assert!(HISTORICAL.is_sorted_by(|(a, ..), (b, ..)| a.as_bytes() < b.as_bytes()));
        let root_only: Vec<_> = HISTORICAL
            .iter()
            .filter(|(.., access)| *access == Access::RootOnly)
            .map(|(name, ..)| *name)
            .collect();
        assert_eq!(
            root_only,
            ["Security_ActivateConfig", "Security_CreateCertificate", "Security_GetConfig"]
        );
    }

    #[test]
    fn extensions_follow_in_byte_order_with_handlers_of_their_own() {
        let first = TABLE.iter().position(|row| row.extension).unwrap_or(TABLE.len());
        let extensions = &TABLE[first..];
        assert!(extensions.iter().all(|row| row.extension));
        assert!(extensions.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes()));
        for row in extensions {
            assert_eq!(row.handler, format!("Extension::{}_Handler", row.name));
        }
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for (index, id) in all().enumerate() {
            assert_eq!(id.index(), index);
            assert_eq!(lookup(id.row().name), Some(id));
        }
        for name in ["", "i", "INC", "inc ", "increment", "VM_INFO\0", &"x".repeat(70_000)] {
            assert_eq!(lookup(name), None, "{name:.20}");
        }
    }

    #[test]
    fn every_default_is_a_value_of_its_type() {
        for row in TABLE {
            visit(row.request, &mut |field| {
                if let Some(default) = field.default {
                    assert!((field.accepts)(default), "{}: {}", row.name, field.name);
                }
            });
        }
    }

    #[test]
    fn everything_is_documented() {
        fn documented(row: &Row, fields: &'static [Field]) {
            visit(fields, &mut |field| {
                assert!(!field.doc.is_empty(), "{}: {}", row.name, field.name);
                documented(row, field.nested);
            });
        }
        for row in TABLE {
            assert!(row.summary.ends_with('.'), "{}: {}", row.name, row.summary);
            documented(row, row.request);
            documented(row, row.reply);
        }
    }

    #[test]
    fn the_listing_has_the_form_of_the_original_log() {
        let lines = listing();
        assert_eq!(lines.first().map(String::as_str), Some("Operations defined in function table:"));
        let inc = "Op inc -> main::increment (authuser)".to_owned();
        let make =
            "Op FileManager_MakeDir -> VMware::VMServerd::FileManager::MakeDir_Handler (authuser)".to_owned();
        assert!(lines.contains(&inc) && lines.contains(&make));
        assert_eq!(lines.len(), 1 + TABLE.len() + usize::from(TABLE.iter().any(|row| row.extension)));
    }
}
