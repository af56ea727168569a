//! A struct as the generators see it: names, kinds and limits settled, contradictions refused.

use std::collections::HashSet;

use syn::{
    Data, DeriveInput, Error, Fields, GenericArgument, Ident, LitInt, LitStr, PathArguments, Result, Type,
};

use crate::attributes;

/// Most items in a list of a request, the limit of the protocol.
const MAX_ITEMS: usize = 256;

/// How a field's Rust type is built.
pub enum Kind {
    /// `T`
    Single(Type),
    /// `Option<T>`
    Optional(Type),
    /// `Vec<T>`
    List(Type),
    /// `Option<Vec<T>>`
    OptionalList(Type),
}

/// Where a field stands in the document.
pub enum Place {
    /// An element.
    Element,
    /// A wrapper with items; name of the item and most items. With an empty name of the wrapper, the
    /// items alone.
    List(String, usize),
    /// The nested fields, without an element.
    Flat,
    /// An attribute.
    Attribute,
    /// The text of the element itself.
    Content,
}

/// One field.
pub struct Field {
    pub ident: Ident,
    /// The type without `Option` and `Vec`.
    pub kind: Kind,
    pub place: Place,
    /// Element or attribute name; empty for flat groups and content.
    pub name: String,
    pub default: Option<LitStr>,
    pub aliases: Vec<String>,
    pub range: Option<(LitInt, LitInt)>,
    pub large: Option<LitInt>,
    pub historical: bool,
    pub doc: String,
}

impl Field {
    /// The type of one value.
    pub fn value_type(&self) -> &Type {
        match &self.kind {
            Kind::Single(ty) | Kind::Optional(ty) | Kind::List(ty) | Kind::OptionalList(ty) => ty,
        }
    }

    /// Whether it is always there.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && matches!(self.kind, Kind::Single(_) | Kind::List(_))
    }
}

/// A struct.
pub struct Model {
    pub ident: Ident,
    pub docs: attributes::Docs,
    pub fields: Vec<Field>,
    /// The field that holds warnings.
    pub warnings: Option<Ident>,
}

/// What a struct is for; decides which keys are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Request,
    Reply,
    Fragment,
}

impl Model {
    /// Reads and checks a struct.
    pub fn new(item: &DeriveInput, role: Role) -> Result<Self> {
        let Data::Struct(data) = &item.data else {
            return Err(Error::new_spanned(&item.ident, "only a struct can be derived"));
        };
        if !item.generics.params.is_empty() {
            return Err(Error::new_spanned(&item.generics, "the struct must not be generic"));
        }
        let fields = match &data.fields {
            Fields::Named(named) => named.named.iter().collect(),
            Fields::Unit => Vec::new(),
            Fields::Unnamed(_) => return Err(Error::new_spanned(&item.ident, "the fields need names")),
        };
        let mut model = Self {
            ident: item.ident.clone(),
            docs: attributes::docs(&item.attrs),
            fields: Vec::new(),
            warnings: None,
        };
        for field in fields {
            let attributes = attributes::field(&field.attrs)?;
            let Some(ident) = field.ident.clone() else { continue };
            if attributes.warnings {
                if role != Role::Reply {
                    return Err(Error::new_spanned(&ident, "`warnings` is for replies"));
                }
                model.warnings = Some(ident);
                continue;
            }
            model.fields.push(Field::new(ident, field, attributes, role)?);
        }
        model.check_names(role)?;
        Ok(model)
    }

    /// No element name may have two meanings. In a request that includes the items of lists, which
    /// may stand without their wrapper; in a reply they are always inside it.
    fn check_names(&self, role: Role) -> Result<()> {
        let mut seen = HashSet::new();
        for field in &self.fields {
            let item = match &field.place {
                Place::List(item, _) if role != Role::Reply => Some(item),
                Place::Attribute => continue,
                _ => None,
            };
            let own = Some(&field.name).filter(|name| !name.is_empty());
            for name in own.into_iter().chain(item).chain(&field.aliases) {
                if !seen.insert(name) {
                    return Err(Error::new_spanned(&field.ident, format!("the name `{name}` is used twice")));
                }
            }
        }
        Ok(())
    }
}

impl Field {
    fn new(ident: Ident, field: &syn::Field, given: attributes::Field, role: Role) -> Result<Self> {
        let wrong = |text: &str| Err(Error::new_spanned(&ident, text));
        let docs = attributes::docs(&field.attrs);
        if docs.summary.is_empty() {
            return wrong("the field needs a doc comment: users read it");
        }
        let kind = kind(&field.ty);
        let is_list = matches!(kind, Kind::List(_) | Kind::OptionalList(_));
        if is_list != given.list.is_some() {
            return wrong("`list = \"wrapper/item\"` belongs to a Vec, and a Vec needs it");
        }
        if usize::from(given.flat)
            + usize::from(given.attribute)
            + usize::from(given.content)
            + usize::from(is_list)
            > 1
        {
            return wrong("only one of flat, attribute, content and list is possible");
        }
        if (given.attribute || given.content) && role != Role::Fragment {
            return wrong("attributes and content are for fragments");
        }
        if given.flat && !matches!(kind, Kind::Single(_)) {
            return wrong("a flat group cannot be optional");
        }
        let input_keys = given.default.is_some()
            || !given.aliases.is_empty()
            || given.min.is_some()
            || given.max.is_some()
            || given.large.is_some()
            || given.max_items.is_some();
        if role == Role::Reply && input_keys {
            return wrong("default, alias, min, max, large and max_items are for requests");
        }
        if given.default.is_some() && !matches!(kind, Kind::Single(_)) {
            return wrong("a default makes the parameter always present: drop the Option or the Vec");
        }
        if given.min.is_some() != given.max.is_some() {
            return wrong("min and max belong together");
        }
        if given.max_items.is_some() && !is_list {
            return wrong("max_items is for lists");
        }
        let own_name = given.name.as_ref().map_or_else(|| ident.to_string(), LitStr::value);
        let (name, place) = match &given.list {
            Some(list) => {
                let text = list.value();
                let Some((wrapper, item)) = text.split_once('/') else {
                    return Err(Error::new_spanned(list, "expected \"wrapper/item\""));
                };
                if wrapper.is_empty() && role == Role::Request {
                    return Err(Error::new_spanned(list, "a list in a request has a wrapper"));
                }
                let max = match &given.max_items {
                    Some(max) => max.base10_parse()?,
                    None => MAX_ITEMS,
                };
                if max > MAX_ITEMS {
                    return Err(Error::new_spanned(&given.max_items, "a list holds at most 256 items"));
                }
                (wrapper.to_owned(), Place::List(item.to_owned(), max))
            }
            None if given.flat => (String::new(), Place::Flat),
            None if given.content => (String::new(), Place::Content),
            None if given.attribute => (own_name, Place::Attribute),
            None => (own_name, Place::Element),
        };
        let doc = [docs.summary, docs.description].join("\n\n").trim_end().to_owned();
        Ok(Self {
            kind,
            place,
            name,
            default: given.default,
            aliases: given.aliases.iter().map(LitStr::value).collect(),
            range: given.min.zip(given.max),
            large: given.large,
            historical: given.historical,
            doc,
            ident,
        })
    }
}

/// Takes `Option` and `Vec` off a type. Decided by the last path segment, which is all a derive sees.
fn kind(ty: &Type) -> Kind {
    match argument_of(ty, "Option") {
        Some(inner) => match argument_of(inner, "Vec") {
            Some(item) => Kind::OptionalList(item.clone()),
            None => Kind::Optional(inner.clone()),
        },
        None => match argument_of(ty, "Vec") {
            Some(item) => Kind::List(item.clone()),
            None => Kind::Single(ty.clone()),
        },
    }
}

/// `T` of `Name<T>`.
fn argument_of<'t>(ty: &'t Type, name: &str) -> Option<&'t Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}
