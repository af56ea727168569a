//! `VMServerd_*`: what the server is, what it can do, who is asking.

use ops_derive::{Fragment, Op, Reply};

use crate::envelope::Product;
use crate::table::{self, Field, Row};
use crate::value::HostPath;

/// Lists the machines that have a process, by the path of their configuration.
///
/// Only machines that the caller may read are listed, sorted by bytes.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetConnectedVMList", handler = "GetConnectedVMList_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetConnectedVmListReply)]
pub struct GetConnectedVmList {}

/// The machines with a process.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetConnectedVmListReply {
    /// Path of the .vmx of each machine.
    #[field(list = "vms/vm")]
    pub vms: Vec<HostPath>,
}

/// Lists the operations of this server.
///
/// The historical rows come first, in the order of VMware Server 1.0.3; operations that this project
/// added follow, each marked as an extension.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetOperationTable", handler = "GetOperationTable_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetOperationTableReply)]
pub struct GetOperationTable {
    /// Whether each row also carries its summary, its parameters and the fields of its reply.
    #[field(default = "0")]
    pub details: bool,
}

/// The operation table.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetOperationTableReply {
    /// One element per operation.
    #[field(list = "operations/operation")]
    pub operations: Vec<OperationInfo>,
}

/// One row of the operation table.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct OperationInfo {
    /// Name in `op`.
    pub name: String,
    /// Handler path, in full.
    pub handler: String,
    /// `authuser`: any logged-in user; `rootonly`: administrators.
    pub access: String,
    /// 1 for an operation that this project added; absent for a historical one.
    pub extension: Option<bool>,
    /// One line that says what the operation does. With `details` only, like all that follows.
    pub summary: Option<String>,
    /// The rest of the description.
    pub description: Option<String>,
    /// `session`, `core` or `task`: where the operation runs.
    pub runs: Option<String>,
    /// What `in` may hold.
    #[field(list = "parameters/parameter")]
    pub parameters: Option<Vec<FieldInfo>>,
    /// What `out` holds.
    #[field(list = "results/result")]
    pub results: Option<Vec<FieldInfo>>,
}

/// One parameter or one value of a reply.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct FieldInfo {
    /// Element name; a path such as `directories/directory` for the items of a list,
    /// `product/title` inside a group, `product@id` for an attribute.
    pub name: String,
    /// Type, such as `integer`, `path` or `list of path`.
    #[field(name = "type")]
    pub kind: String,
    /// 1 when a request must give it, or when a reply always has it.
    pub required: bool,
    /// The value of an absent parameter; empty when there is none.
    pub default: String,
    /// What it means.
    pub summary: String,
    /// Other names that a request may use.
    #[field(list = "aliases/alias")]
    pub aliases: Option<Vec<String>>,
    /// 1 when the element is known from VMware Server 1.0.3.
    pub historical: Option<bool>,
}

impl GetOperationTableReply {
    /// The table of this server.
    #[must_use]
    pub fn of_table(details: bool) -> Self {
        Self { operations: table::TABLE.iter().map(|row| OperationInfo::of(row, details)).collect() }
    }
}

impl OperationInfo {
    /// One row, with or without its details.
    #[must_use]
    pub fn of(row: &Row, details: bool) -> Self {
        Self {
            name: row.name.to_owned(),
            handler: row.handler.to_owned(),
            access: row.access.word().to_owned(),
            extension: row.extension.then_some(true),
            summary: details.then(|| row.summary.to_owned()),
            description: (details && !row.description.is_empty()).then(|| row.description.to_owned()),
            runs: details.then(|| row.runs.word().to_owned()),
            parameters: details.then(|| FieldInfo::all(row.request)),
            results: details.then(|| FieldInfo::all(row.reply)),
        }
    }
}

impl FieldInfo {
    /// The fields and, with longer names, what is inside them.
    #[must_use]
    pub fn all(fields: &'static [Field]) -> Vec<Self> {
        let mut found = Vec::new();
        Self::collect("", fields, &mut found);
        found
    }

    fn collect(prefix: &str, fields: &'static [Field], found: &mut Vec<Self>) {
        table::visit(fields, &mut |field| {
            let name = field.path(prefix);
            let inside = format!("{name}/");
            found.push(Self {
                name,
                kind: field.type_name(),
                required: field.required,
                default: field.default.unwrap_or_default().to_owned(),
                summary: field.doc.to_owned(),
                aliases: (!field.aliases.is_empty())
                    .then(|| field.aliases.iter().map(|&alias| alias.to_owned()).collect()),
                historical: field.historical.then_some(true),
            });
            Self::collect(&inside, field.nested, found);
        });
    }
}

/// Tells which product this server presents itself as, and what it really is.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetProductInfo", handler = "GetProductInfo_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetProductInfoReply)]
pub struct GetProductInfo {}

/// The product and its implementation.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetProductInfoReply {
    /// The product, as in the envelope of every reply.
    pub product: ProductInfo,
    /// Operating system of the host; always `linux`.
    pub platform: String,
    /// The program that answers.
    pub implementation: Implementation,
}

/// The product element, which looks like the one of the envelope.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct ProductInfo {
    /// Product line; `GSX` for VMware Server.
    #[field(attribute)]
    pub id: String,
    /// Name of the product.
    pub title: String,
    /// Version and build.
    pub version: String,
    /// Build number.
    pub build: String,
}

/// The program behind the product's name.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Implementation {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl GetProductInfoReply {
    /// What the program `name` of that `version` says while it presents itself as `product`.
    #[must_use]
    pub fn new(product: &Product, name: &str, version: &str) -> Self {
        Self {
            product: ProductInfo {
                id: product.id().to_owned(),
                title: product.title().to_owned(),
                version: product.version().to_owned(),
                build: product.build().to_owned(),
            },
            platform: "linux".to_owned(),
            implementation: Implementation { name: name.to_owned(), version: version.to_owned() },
        }
    }
}

/// Counts the requests that the server has answered since its start.
///
/// The count covers all users and includes this request.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetRequestCount", handler = "GetRequestCount_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetRequestCountReply)]
pub struct GetRequestCount {}

/// The number of requests.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetRequestCountReply {
    /// Requests answered since start, this one included.
    pub count: u64,
}

/// Tells who the caller is, and whether that is an administrator.
///
/// Administrators are uid 0 and the members of the group that the setting `serverd.admin.group`
/// names.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_IsAdminUser", handler = "IsAdminUser_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = IsAdminUserReply)]
pub struct IsAdminUser {}

/// The caller.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct IsAdminUserReply {
    /// Name of the caller, or the number of a user who has none.
    pub user: String,
    /// 1 for an administrator.
    #[field(name = "isAdmin")]
    pub is_admin: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_a_request_needs() {
        let table = GetOperationTableReply::of_table(true);
        let make = table.operations.iter().find(|row| row.name == "FileManager_MakeDir").unwrap();
        let parameters: Vec<_> = make
            .parameters
            .iter()
            .flatten()
            .map(|field| (field.name.as_str(), field.kind.as_str(), field.required, field.default.as_str()))
            .collect();
        assert_eq!(
            parameters,
            [
                ("directories/directory", "list of path", true, ""),
                ("owner_mode", "rights", false, ""),
                ("group_mode", "rights", false, ""),
                ("other_mode", "rights", false, ""),
                ("makeParents", "boolean", false, "0"),
            ]
        );
        let product = table.operations.iter().find(|row| row.name == "VMServerd_GetProductInfo").unwrap();
        let results: Vec<_> = product.results.iter().flatten().map(|field| field.name.as_str()).collect();
        assert_eq!(
            results,
            [
                "product",
                "product@id",
                "product/title",
                "product/version",
                "product/build",
                "platform",
                "implementation",
                "implementation/name",
                "implementation/version",
            ]
        );
        assert!(table.operations.iter().all(|row| row.summary.is_some()));
    }

    #[test]
    fn without_details_a_row_is_name_handler_and_access() {
        let table = GetOperationTableReply::of_table(false);
        let inc = table.operations.iter().find(|row| row.name == "inc").unwrap();
        let mut bytes = Vec::new();
        crate::value::Element::write_element(inc, "operation", &mut crate::Out::new(&mut bytes));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "<operation><name>inc</name><handler>main::increment</handler><access>authuser</access></operation>"
        );
    }
}
