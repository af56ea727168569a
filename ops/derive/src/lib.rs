//! The derives of the operation table.
//!
//! One struct per request and one per reply is all that an operation declares. From it come the
//! parser, the writer, the field list for introspection, the reference page and the fuzz dictionary:
//!
//! ```text
//!   struct ──▶ model::Model ──┬─▶ input.rs   parser      #[derive(Op)], #[fragment(request)]
//!   (docs, #[op], #[field])   ├─▶ output.rs  writer      #[derive(Reply)], #[derive(Fragment)]
//!                             └─▶ fields.rs  field list  all of them
//! ```
//!
//! Doc comments are part of the product: an operation's first paragraph is its summary, and every
//! field must have one, because users read them in `VMServerd_GetOperationTable` and in
//! `docs/operations/`.
//!
//! # `#[op(...)]`
//!
//! | key | meaning |
//! | --- | --- |
//! | `name = "inc"` | name in the request |
//! | `handler = "FileManager::MakeDir_Handler"` | handler; `VMware::VMServerd::` is put in front unless it starts with `main::` or `Extension::` |
//! | `access = AuthUser` | or `RootOnly` |
//! | `runs = Session` | or `Core`, `Task` |
//! | `effect = Reads` | or `Changes`, which the audit records |
//! | `reply = Type` | a type with `#[derive(Reply)]` |
//!
//! A handler below `Extension::` marks the operation as an extension.
//!
//! # `#[field(...)]`
//!
//! The Rust type decides: `T` is required, `Option<T>` may be absent, `Vec<T>` is a list.
//!
//! | key | meaning |
//! | --- | --- |
//! | `name = "makeParents"` | element name, when it is not the field's own |
//! | `default = "0"` | value of an absent parameter |
//! | `list = "directories/directory"` | wrapper and item of a `Vec`; `"/user"` in replies for items without a wrapper |
//! | `max_items = 100` | a smaller limit than 256 |
//! | `alias = "path"` | another name in requests; may be repeated; for a list, another name of its item |
//! | `min = 1, max = 1000` | range of an integer |
//! | `large = 1048576` | the text may be larger than a whole request |
//! | `flat` | the group's fields stand in place, without an element of their own |
//! | `attribute` | (groups) written as an attribute |
//! | `content` | (groups) the text of the element itself |
//! | `warnings` | (replies) a `Vec<String>` of remarks instead of an element |
//! | `historical` | the element is known from VMware Server 1.0.3 |

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attributes;
mod fields;
mod input;
mod model;
mod output;

/// Declares an operation: implements `ops::Operation` for its request type.
#[proc_macro_derive(Op, attributes(op, field))]
pub fn derive_op(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    input::operation(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `ops::Reply`.
#[proc_macro_derive(Reply, attributes(field))]
pub fn derive_reply(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    output::reply(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `ops::Fragment` and `ops::value::Element`; with `#[fragment(request)]` also
/// `ops::FragmentInput` and `ops::reader::Item`, so that a request can have it in place (`flat`) or as
/// items of a list.
#[proc_macro_derive(Fragment, attributes(fragment, field))]
pub fn derive_fragment(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    output::fragment(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}
