//! Reads `#[op(...)]`, `#[fragment(...)]`, `#[field(...)]` and doc comments.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Meta, Path, Result};

/// What `#[op(...)]` says.
pub struct Op {
    pub name: LitStr,
    pub handler: LitStr,
    pub access: Ident,
    pub runs: Ident,
    pub effect: Ident,
    pub reply: Path,
}

/// What `#[field(...)]` says; everything is optional.
#[derive(Default)]
pub struct Field {
    pub name: Option<LitStr>,
    pub default: Option<LitStr>,
    pub list: Option<LitStr>,
    pub max_items: Option<LitInt>,
    pub aliases: Vec<LitStr>,
    pub min: Option<LitInt>,
    pub max: Option<LitInt>,
    pub large: Option<LitInt>,
    pub flat: bool,
    pub attribute: bool,
    pub content: bool,
    pub warnings: bool,
    pub historical: bool,
}

/// Text of the doc comments: summary and description, or the whole.
pub struct Docs {
    /// The first paragraph, on one line.
    pub summary: String,
    /// The other paragraphs, each on one line, with blank lines between.
    pub description: String,
}

/// Stores `value`, or complains that the key was there before.
fn once<T>(slot: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(meta.error("given twice"));
    }
    Ok(())
}

/// Reads the one `#[op(...)]` of a request type.
pub fn op(item: &syn::DeriveInput) -> Result<Op> {
    let (mut name, mut handler, mut access, mut runs, mut effect, mut reply) =
        (None, None, None, None, None, None);
    for attribute in item.attrs.iter().filter(|a| a.path().is_ident("op")) {
        attribute.parse_nested_meta(|meta| {
            let Some(key) = meta.path.get_ident().map(Ident::to_string) else {
                return Err(meta.error("expected a key"));
            };
            match key.as_str() {
                "name" => {
                    let value = meta.value()?.parse()?;
                    once(&mut name, &meta, value)
                }
                "handler" => {
                    let value = meta.value()?.parse()?;
                    once(&mut handler, &meta, value)
                }
                "access" => {
                    let value = word(&meta, &["AuthUser", "RootOnly"])?;
                    once(&mut access, &meta, value)
                }
                "runs" => {
                    let value = word(&meta, &["Session", "Core", "Task"])?;
                    once(&mut runs, &meta, value)
                }
                "effect" => {
                    let value = word(&meta, &["Reads", "Changes"])?;
                    once(&mut effect, &meta, value)
                }
                "reply" => {
                    let value = meta.value()?.parse()?;
                    once(&mut reply, &meta, value)
                }
                _ => Err(meta.error("unknown key; known are name, handler, access, runs, effect, reply")),
            }
        })?;
    }
    let missing = |key| Error::new_spanned(&item.ident, format!("#[op({key} = ...)] is missing"));
    Ok(Op {
        name: name.ok_or_else(|| missing("name"))?,
        handler: handler.ok_or_else(|| missing("handler"))?,
        access: access.ok_or_else(|| missing("access"))?,
        runs: runs.ok_or_else(|| missing("runs"))?,
        effect: effect.ok_or_else(|| missing("effect"))?,
        reply: reply.ok_or_else(|| missing("reply"))?,
    })
}

/// Reads one identifier out of a set.
fn word(meta: &ParseNestedMeta<'_>, allowed: &[&str]) -> Result<Ident> {
    let value: Ident = meta.value()?.parse()?;
    if allowed.iter().any(|word| value == word) {
        Ok(value)
    } else {
        Err(Error::new_spanned(value, format!("must be one of {}", allowed.join(", "))))
    }
}

/// Whether `#[fragment(request)]` is there.
pub fn fragment_request(attributes: &[Attribute]) -> Result<bool> {
    let mut request = false;
    for attribute in attributes.iter().filter(|a| a.path().is_ident("fragment")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("request") {
                request = true;
                Ok(())
            } else {
                Err(meta.error("unknown key; known is request"))
            }
        })?;
    }
    Ok(request)
}

/// Reads all `#[field(...)]` of one field.
pub fn field(attributes: &[Attribute]) -> Result<Field> {
    let mut found = Field::default();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("field")) {
        attribute.parse_nested_meta(|meta| {
            let Some(key) = meta.path.get_ident().map(Ident::to_string) else {
                return Err(meta.error("expected a key"));
            };
            match key.as_str() {
                "name" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.name, &meta, value)?;
                }
                "default" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.default, &meta, value)?;
                }
                "list" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.list, &meta, value)?;
                }
                "max_items" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.max_items, &meta, value)?;
                }
                "min" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.min, &meta, value)?;
                }
                "max" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.max, &meta, value)?;
                }
                "large" => {
                    let value = meta.value()?.parse()?;
                    once(&mut found.large, &meta, value)?;
                }
                "alias" => found.aliases.push(meta.value()?.parse()?),
                "flat" => found.flat = true,
                "attribute" => found.attribute = true,
                "content" => found.content = true,
                "warnings" => found.warnings = true,
                "historical" => found.historical = true,
                _ => {
                    return Err(meta.error(
                        "unknown key; known are name, default, list, max_items, alias, min, max, large, \
                         flat, attribute, content, warnings, historical",
                    ));
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Collects the doc comments. Lines are joined to paragraphs, paragraphs kept apart.
pub fn docs(attributes: &[Attribute]) -> Docs {
    let mut paragraphs = vec![String::new()];
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { continue };
        if !pair.path.is_ident("doc") {
            continue;
        }
        let line = text.value();
        let line = line.trim();
        match paragraphs.last_mut() {
            _ if line.is_empty() => paragraphs.push(String::new()),
            Some(paragraph) => {
                if !paragraph.is_empty() {
                    paragraph.push(' ');
                }
                paragraph.push_str(line);
            }
            None => {}
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    let mut paragraphs = paragraphs.into_iter();
    Docs {
        summary: paragraphs.next().unwrap_or_default(),
        description: paragraphs.collect::<Vec<_>>().join("\n\n"),
    }
}
