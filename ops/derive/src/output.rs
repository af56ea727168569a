//! Generates writers: straight-line code, one statement per field, in the order of declaration.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Result};

use crate::model::{Field, Kind, Model, Place, Role};
use crate::{attributes, fields, input};

/// `impl Reply`.
pub fn reply(item: &DeriveInput) -> Result<TokenStream> {
    let model = Model::new(item, Role::Reply)?;
    let ident = &model.ident;
    let list = fields::list(&model, false);
    let writes = model.fields.iter().map(write);
    let warnings = model.warnings.as_ref().map(|field| {
        quote! {
            fn warnings(&self) -> &[::std::string::String] {
                &self.#field
            }
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl ::ops::Reply for #ident {
            const FIELDS: &'static [::ops::Field] = #list;

            fn write(&self, out: &mut ::ops::Out<'_>) {
                let _ = &out;
                #(#writes)*
            }

            #warnings
        }
    })
}

/// `impl Fragment`, `impl Element`, and `impl FragmentInput` where asked for.
pub fn fragment(item: &DeriveInput) -> Result<TokenStream> {
    let request = attributes::fragment_request(&item.attrs)?;
    let model = Model::new(item, Role::Fragment)?;
    if request {
        // Attributes of a request mean nothing, and a group in place has no text of its own.
        let unreadable = |field: &&Field| match field.place {
            Place::Attribute | Place::Content => true,
            Place::List(..) => field.name.is_empty(),
            Place::Element | Place::Flat => false,
        };
        if let Some(field) = model.fields.iter().find(unreadable) {
            let text = "a request has no attributes, no content, and no list without a wrapper";
            return Err(syn::Error::new_spanned(&field.ident, text));
        }
    }
    let ident = &model.ident;
    let list = fields::list(&model, request);
    let is_attribute = |field: &&Field| matches!(field.place, Place::Attribute);
    let attributes = model.fields.iter().filter(is_attribute).map(write);
    let writes = model.fields.iter().filter(|field| !is_attribute(field)).map(write);
    let input = request.then(|| input::fragment(&model));
    Ok(quote! {
        #[automatically_derived]
        impl ::ops::Fragment for #ident {
            const FIELDS: &'static [::ops::Field] = #list;

            fn write_attributes(&self, out: &mut ::ops::Out<'_>) {
                let _ = &out;
                #(#attributes)*
            }

            fn write_fields(&self, out: &mut ::ops::Out<'_>) {
                let _ = &out;
                #(#writes)*
            }
        }

        #[automatically_derived]
        impl ::ops::value::Element for #ident {
            const KIND: &'static str = "group";
            const NESTED: &'static [::ops::Field] = <Self as ::ops::Fragment>::FIELDS;

            fn write_element(&self, name: &str, out: &mut ::ops::Out<'_>) {
                out.begin(name);
                ::ops::Fragment::write_attributes(self, out);
                let mark = out.end_attributes();
                ::ops::Fragment::write_fields(self, out);
                out.close(name, mark);
            }
        }

        #input
    })
}

/// The statement that writes one field.
fn write(field: &Field) -> TokenStream {
    let Field { ident, name, .. } = field;
    let one = |value: TokenStream| match &field.place {
        Place::Element => quote! { ::ops::value::Element::write_element(#value, #name, out); },
        Place::List(item, _) if name.is_empty() => quote! {
            for item in #value {
                ::ops::value::Element::write_element(item, #item, out);
            }
        },
        Place::List(item, _) => quote! {
            let mark = out.open(#name);
            for item in #value {
                ::ops::value::Element::write_element(item, #item, out);
            }
            out.close(#name, mark);
        },
        Place::Flat => quote! { ::ops::Fragment::write_fields(#value, out); },
        Place::Attribute => quote! {
            out.attribute(#name, |out| ::ops::value::Scalar::write(#value, out));
        },
        Place::Content => quote! { ::ops::value::Scalar::write(#value, out); },
    };
    match field.kind {
        Kind::Optional(_) | Kind::OptionalList(_) => {
            let write = one(quote! { value });
            quote! { if let ::core::option::Option::Some(value) = &self.#ident { #write } }
        }
        Kind::Single(_) | Kind::List(_) => one(quote! { &self.#ident }),
    }
}
