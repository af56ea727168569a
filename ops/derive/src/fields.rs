//! Generates the field list: the part of a declaration that people and tools read.

use proc_macro2::TokenStream;
use quote::quote;

use crate::model::{Field, Model, Place};

/// `&[Field { ... }, ...]`. `request` adds the check of a parameter's text.
pub fn list(model: &Model, request: bool) -> TokenStream {
    let fields = model.fields.iter().map(|field| one(field, request));
    quote! { &[#(#fields),*] }
}

fn one(field: &Field, request: bool) -> TokenStream {
    let ty = field.value_type();
    let Field { name, doc, historical, aliases, .. } = field;
    let required = field.is_required();
    let shape = match &field.place {
        Place::Element => quote! { ::ops::Shape::Element },
        Place::List(item, max) => quote! { ::ops::Shape::List { item: #item, max: #max } },
        Place::Flat => quote! { ::ops::Shape::Flat },
        Place::Attribute => quote! { ::ops::Shape::Attribute },
        Place::Content => quote! { ::ops::Shape::Content },
    };
    let default = match &field.default {
        Some(text) => quote! { ::core::option::Option::Some(#text) },
        None => quote! { ::core::option::Option::None },
    };
    let range = match &field.range {
        Some((min, max)) => quote! { ::core::option::Option::Some((#min, #max)) },
        None => quote! { ::core::option::Option::None },
    };
    let accepts = if request && !matches!(field.place, Place::Flat) {
        quote! { <#ty as ::ops::reader::Item>::accepts }
    } else {
        quote! { ::ops::Field::BASE.accepts }
    };
    quote! {
        ::ops::Field {
            name: #name,
            kind: <#ty as ::ops::value::Element>::KIND,
            shape: #shape,
            required: #required,
            default: #default,
            aliases: &[#(#aliases),*],
            range: #range,
            historical: #historical,
            doc: #doc,
            nested: <#ty as ::ops::value::Element>::NESTED,
            accepts: #accepts,
        }
    }
}
