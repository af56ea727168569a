//! The `#[handler]` attribute.
//!
//! A handler is a plain function from the caller's context and a typed request to a typed reply. The
//! attribute leaves the function as it is, so that tests call it directly, and adds a registration
//! from which `handlers::link` later builds the dispatch array:
//!
//! ```text
//! #[handler]                                        fn make_dir(..) { .. }        unchanged
//! fn make_dir(ctx: &Ctx, req: MakeDir)      ──▶     inventory::submit! { Registration {
//!     -> Result<MakeDirReply, Error> { .. }             op: <MakeDir as Operation>::ROW.name,
//!                                                       function: "make_dir", run: Run::Blocking(..) } }
//! ```
//!
//! Where the function runs follows from its form: a plain `fn` may wait for the file system and goes
//! to the blocking pool, `#[handler(quick)]` promises that it never waits and runs inline, and an
//! `async fn` is awaited because it asks the core.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, Ident, ItemFn, Type, spanned::Spanned};

/// Registers a function as the handler of the operation that its second parameter is the request of.
///
/// Expands to paths in the crate `handlers` and is of use only there.
#[proc_macro_attribute]
pub fn handler(attribute: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(attribute.into(), item.into()).unwrap_or_else(Error::into_compile_error).into()
}

/// Where the function is to run.
enum Form {
    Quick,
    Blocking,
    Async,
}

fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = syn::parse2(item)?;
    let form = form(attribute, &function)?;
    let request = request_type(&function)?;
    let name = &function.sig.ident;
    let run = match form {
        Form::Quick => quote! {
            crate::Run::Quick(|ctx, input, out| crate::run::quick::<#request, _, _>(ctx, input, out, #name))
        },
        Form::Blocking => quote! {
            crate::Run::Blocking(|ctx, input| crate::run::blocking::<#request, _, _>(ctx, input, #name))
        },
        Form::Async => quote! {
            crate::Run::Async(|ctx, input| {
                crate::run::answer::<#request, _, _>(ctx, input, |ctx, request| {
                    ::std::boxed::Box::pin(#name(ctx, request))
                })
            })
        },
    };
    let text = name.to_string();
    Ok(quote! {
        // A handler owns its request by contract, whether it needs to or not.
        #[allow(clippy::needless_pass_by_value)]
        #function
        ::inventory::submit! {
            crate::Registration {
                op: <#request as ::ops::Operation>::ROW.name,
                function: ::core::concat!(::core::module_path!(), "::", #text),
                run: #run,
            }
        }
    })
}

fn form(attribute: TokenStream, function: &ItemFn) -> syn::Result<Form> {
    let is_async = function.sig.asyncness.is_some();
    if attribute.is_empty() {
        return Ok(if is_async { Form::Async } else { Form::Blocking });
    }
    let word: Ident = syn::parse2(attribute)?;
    if word != "quick" {
        return Err(Error::new(word.span(), "the only option of a handler is `quick`"));
    }
    if is_async {
        return Err(Error::new(word.span(), "a quick handler runs inline and cannot be async"));
    }
    Ok(Form::Quick)
}

/// The type of the second parameter.
fn request_type(function: &ItemFn) -> syn::Result<&Type> {
    let mut inputs = function.sig.inputs.iter();
    match (inputs.next(), inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(_)), Some(FnArg::Typed(request)), None) => Ok(&request.ty),
        _ => Err(Error::new(
            function.sig.span(),
            "a handler takes the caller's context and the request: fn(ctx: &Ctx, req: T) -> Result<_, _>",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(attribute: TokenStream, item: TokenStream) -> Result<String, String> {
        expand(attribute, item).map(|tokens| tokens.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_form_of_the_function_decides_where_it_runs() {
        let plain = quote! { fn make(ctx: &Ctx, req: Make) -> Result<Made, Error> { todo() } };
        let ask = quote! { async fn ask(ctx: &Ctx, req: Ask) -> Result<Told, Error> { todo() } };
        assert!(expanded(quote!(), plain.clone()).unwrap().contains("Run :: Blocking"));
        assert!(expanded(quote!(quick), plain).unwrap().contains("Run :: Quick"));
        let text = expanded(quote!(), ask).unwrap();
        assert!(text.contains("Run :: Async"));
        assert!(text.contains("< Ask as :: ops :: Operation > :: ROW . name"), "{text}");
    }

    #[test]
    fn what_cannot_be_a_handler_is_refused_with_advice() {
        let refused = |attribute, item| expanded(attribute, item).unwrap_err();
        let ask = quote! { async fn ask(ctx: &Ctx, req: Ask) -> Result<Told, Error> { todo() } };
        assert!(refused(quote!(quick), ask.clone()).contains("cannot be async"));
        assert!(refused(quote!(fast), ask).contains("`quick`"));
        let one = quote! { fn one(req: Ask) -> Result<Told, Error> { todo() } };
        assert!(refused(quote!(), one).contains("the caller's context and the request"));
    }
}
