//! Generates parsers: the whole request of an operation, and groups that may stand in one.
//!
//! A parser is one loop over the children of `in` with a `match` on their names. Each field has a
//! slot that starts empty; after the loop the rest of the document is read, and only then are the
//! slots turned into the struct, so that a malformed rest wins over a missing parameter.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::{DeriveInput, Error, LitStr, Result};

use crate::model::{Field, Kind, Model, Place, Role};
use crate::{attributes, fields};

/// `impl Operation`.
pub fn operation(item: &DeriveInput) -> Result<TokenStream> {
    let op = attributes::op(item)?;
    let model = Model::new(item, Role::Request)?;
    if model.docs.summary.is_empty() {
        return Err(Error::new_spanned(
            &model.ident,
            "the operation needs a doc comment: its first paragraph is the summary",
        ));
    }
    let attributes::Op { name, access, runs, effect, reply, .. } = &op;
    let (handler, extension) = handler(&op.handler);
    let (summary, description) = (&model.docs.summary, &model.docs.description);
    let request = fields::list(&model, true);
    let large = large(&model)?;
    let ident = &model.ident;

    let place = |field: &Field| {
        let slot = slot(field);
        quote! { #slot }
    };
    let slots = model.fields.iter().map(|field| {
        let (slot, ty) = (slot(field), slot_type(field));
        quote! { let mut #slot: #ty = ::core::default::Default::default(); }
    });
    let arms = model.fields.iter().map(|field| arm(field, &place(field), &quote! { &mut input }));
    let other = other(&model, &place, &quote! { &mut input });
    let values = model.fields.iter().map(|field| value(field, &place(field)));
    // On a connection to one machine it need not be named.
    let own = own_machine(&model, &place, &quote! { &input });
    // An operation without parameters needs no match at all.
    let body = if model.fields.is_empty() {
        quote! { while input.field()?.is_some() { input.skip()?; } }
    } else {
        quote! {
            while let ::core::option::Option::Some(name) = input.field()? {
                match name {
                    #(#arms)*
                    other => if !(#other) { input.skip()?; },
                }
            }
        }
    };
    Ok(quote! {
        #[automatically_derived]
        impl ::ops::Operation for #ident {
            const ROW: ::ops::Row = ::ops::Row {
                name: #name,
                handler: #handler,
                access: ::ops::Access::#access,
                runs: ::ops::Runs::#runs,
                effect: ::ops::Effect::#effect,
                extension: #extension,
                summary: #summary,
                description: #description,
                request: #request,
                reply: <#reply as ::ops::Reply>::FIELDS,
                large: #large,
                check: |input| <Self as ::ops::Operation>::read(input).map(drop),
            };

            type Reply = #reply;

            fn read(
                mut input: ::ops::reader::Input<'_>,
            ) -> ::core::result::Result<Self, ::ops::Fault> {
                #(#slots)*
                #body
                #own
                input.finish()?;
                ::core::result::Result::Ok(Self { #(#values),* })
            }
        }
    })
}

/// `impl FragmentInput` and `impl Item`, for a group that a request may contain in place or as items of
/// a list.
pub fn fragment(model: &Model) -> TokenStream {
    let ident = &model.ident;
    let slots = format_ident!("{ident}Slots");
    let place = |field: &Field| {
        let slot = slot(field);
        quote! { slots.#slot }
    };
    let declarations = model.fields.iter().map(|field| {
        let (slot, ty) = (slot(field), slot_type(field));
        quote! { #slot: #ty }
    });
    let arms = model.fields.iter().map(|field| arm(field, &place(field), &quote! { input }));
    let other = other(model, &place, &quote! { input });
    let values = model.fields.iter().map(|field| value(field, &place(field)));
    let own = own_machine(model, &place, &quote! { input });
    quote! {
        #[doc(hidden)]
        #[derive(Debug, Default)]
        pub struct #slots { #(#declarations),* }

        #[automatically_derived]
        impl ::ops::FragmentInput for #ident {
            type Slots = #slots;

            fn accept(
                slots: &mut Self::Slots,
                name: &str,
                input: &mut ::ops::reader::Input<'_>,
            ) -> ::core::result::Result<bool, ::ops::Fault> {
                match name {
                    #(#arms)*
                    other => return ::core::result::Result::Ok(#other),
                }
                ::core::result::Result::Ok(true)
            }

            #[allow(unused_variables)]
            fn own_machine(slots: &mut Self::Slots, input: &::ops::reader::Input<'_>) {
                #own
            }

            fn build(slots: Self::Slots) -> ::core::result::Result<Self, ::ops::Fault> {
                ::core::result::Result::Ok(Self { #(#values),* })
            }
        }

        #[automatically_derived]
        impl ::ops::reader::Item for #ident {
            fn take(
                input: &mut ::ops::reader::Input<'_>,
                name: &str,
            ) -> ::core::result::Result<::core::option::Option<Self>, ::ops::Fault> {
                ::ops::reader::Input::group(input, name)
            }

            fn accepts(_: &str) -> bool {
                false
            }
        }
    }
}

/// The full handler path, and whether it is one of this project.
fn handler(given: &LitStr) -> (String, bool) {
    let path = given.value();
    let extension = path.starts_with("Extension::");
    if extension || path.starts_with("main::") {
        (path, extension)
    } else {
        (format!("VMware::VMServerd::{path}"), false)
    }
}

/// The declaration of a parameter with a size limit of its own; at most one.
fn large(model: &Model) -> Result<TokenStream> {
    let mut found = model.fields.iter().filter_map(|field| field.large.as_ref().map(|max| (field, max)));
    let first = found.next();
    if let Some((field, _)) = found.next() {
        return Err(Error::new_spanned(&field.ident, "only one parameter can be large"));
    }
    Ok(match first {
        Some((Field { name, aliases, .. }, max)) => quote! {
            ::core::option::Option::Some(::ops::table::LargeText {
                field: #name,
                aliases: &[#(#aliases),*],
                max: #max,
            })
        },
        None => quote! { ::core::option::Option::None },
    })
}

fn slot(field: &Field) -> Ident {
    format_ident!("slot_{}", field.ident)
}

fn slot_type(field: &Field) -> TokenStream {
    let ty = field.value_type();
    match field.place {
        Place::Flat => quote! { <#ty as ::ops::FragmentInput>::Slots },
        Place::List(..) => quote! { ::ops::reader::ListSlot<#ty> },
        _ => quote! { ::ops::reader::Slot<#ty> },
    }
}

/// The match arms that read one field. `place` is its slot, `input` a mutable reference.
fn arm(field: &Field, place: &TokenStream, input: &TokenStream) -> TokenStream {
    let Field { name, aliases, .. } = field;
    match &field.place {
        Place::Flat => TokenStream::new(),
        Place::List(item, max) => quote! {
            #name => ::ops::reader::Input::list(#input, #name, #item, #max, &mut #place)?,
            #item #(| #aliases)* => ::ops::reader::Input::item(#input, #item, &mut #place)?,
        },
        _ => match &field.range {
            Some((min, max)) => quote! {
                #name #(| #aliases)* => ::ops::reader::Input::ranged(#input, #name, (#min, #max), &mut #place)?,
            },
            None => quote! {
                #name #(| #aliases)* => ::ops::reader::Input::scalar(#input, #name, &mut #place)?,
            },
        },
    }
}

/// Offers a name that no arm knows to the flat groups; true when one took it.
fn other(model: &Model, place: &dyn Fn(&Field) -> TokenStream, input: &TokenStream) -> TokenStream {
    let groups = model.fields.iter().filter(|field| matches!(field.place, Place::Flat)).map(|field| {
        let (ty, place) = (field.value_type(), place(field));
        quote! { <#ty as ::ops::FragmentInput>::accept(&mut #place, other, #input)? }
    });
    let groups: Vec<_> = groups.collect();
    if groups.is_empty() {
        quote! {{ let _ = other; false }}
    } else {
        quote! { #(#groups)||* }
    }
}

/// Gives a `config` that was not named the machine of the connection; in groups as well.
fn own_machine(model: &Model, place: &dyn Fn(&Field) -> TokenStream, input: &TokenStream) -> TokenStream {
    let fields = model.fields.iter().filter_map(|field| {
        let (slot, ty) = (place(field), field.value_type());
        match (&field.place, &field.kind) {
            (Place::Flat, _) => {
                Some(quote! { <#ty as ::ops::FragmentInput>::own_machine(&mut #slot, #input); })
            }
            (_, Kind::Single(_)) if field.name == "config" && field.default.is_none() => {
                Some(quote! { ::ops::reader::Input::own_machine(#input, &mut #slot); })
            }
            _ => None,
        }
    });
    quote! { #(#fields)* }
}

/// The initialiser of one field.
fn value(field: &Field, place: &TokenStream) -> TokenStream {
    let Field { ident, name, .. } = field;
    let ty = field.value_type();
    match (&field.place, &field.kind, &field.default) {
        (Place::Flat, ..) => quote! { #ident: <#ty as ::ops::FragmentInput>::build(#place)? },
        (_, Kind::List(_), _) => quote! { #ident: ::ops::reader::required_list(#name, #place)? },
        (_, Kind::OptionalList(_), _) => quote! { #ident: ::ops::reader::optional_list(#place) },
        (_, Kind::Optional(_), _) => quote! { #ident: #place },
        (_, Kind::Single(_), Some(default)) => {
            quote! { #ident: ::ops::reader::or_default(#name, #default, #place)? }
        }
        (_, Kind::Single(_), None) => quote! { #ident: ::ops::reader::required(#name, #place)? },
    }
}
