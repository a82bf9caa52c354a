//! The shape of a handler: that `handle` takes and returns what the world says.
//!
//! wasmtime looks at it when an instance is made, which is too late: a component that cannot be called
//! is refused when it is loaded.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};

/// What `handle` is in `wit/task.wit`.
const HANDLE: &str = "func(message: record { id: string, topic: string, \
     headers: list<tuple<string, string>>, body: list<u8> }) \
     -> result<_, variant { retry(string), reject(string) }>";
/// How deep types are looked into. Those of the world are four deep.
const MAX_DEPTH: usize = 8;

/// Tells how the handler of a component differs from that of the world.
pub(crate) fn objection(component: &Component, engine: &Engine) -> Option<String> {
    let world = component.component_type();
    let mut exports = world.exports(engine);
    let handler = exports.find(|(name, _)| name.starts_with("loopabull:task/handler@"));
    let Some((_, item)) = handler else { return Some("it has no handler".to_owned()) };
    let ComponentItem::ComponentInstance(interface) = item.ty else {
        return Some("its handler is no interface".to_owned());
    };
    let handle = interface.get_export(engine, "handle").map(|item| item.ty);
    let Some(ComponentItem::ComponentFunc(handle)) = handle else {
        return Some("its handler has no function `handle`".to_owned());
    };
    let found = describe(&handle);
    (found != HANDLE).then(|| format!("its `handle` is {found}"))
}

fn describe(func: &ComponentFunc) -> String {
    let params = func.params().map(|(name, ty)| format!("{name}: {}", name_of(&ty, 0)));
    let params = params.collect::<Vec<_>>().join(", ");
    let results = func.results().map(|ty| format!(" -> {}", name_of(&ty, 0)));
    format!("func({params}){}", results.collect::<String>())
}

fn name_of(ty: &Type, depth: usize) -> String {
    if depth > MAX_DEPTH {
        return "…".to_owned();
    }
    let name = |ty: &Type| name_of(ty, depth + 1);
    let optional = |ty: Option<Type>| ty.map_or("_".to_owned(), |ty| name(&ty));
    match ty {
        Type::String => "string".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::List(list) => format!("list<{}>", name(&list.ty())),
        Type::Tuple(tuple) => {
            let types = tuple.types().map(|ty| name(&ty));
            format!("tuple<{}>", types.collect::<Vec<_>>().join(", "))
        }
        Type::Record(record) => {
            let fields =
                record.fields().map(|field| format!("{}: {}", field.name, name(&field.ty)));
            format!("record {{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Type::Variant(variant) => {
            let cases = variant.cases().map(|case| match case.ty {
                Some(ty) => format!("{}({})", case.name, name(&ty)),
                None => case.name.to_owned(),
            });
            format!("variant {{ {} }}", cases.collect::<Vec<_>>().join(", "))
        }
        Type::Result(result) => {
            format!("result<{}, {}>", optional(result.ok()), optional(result.err()))
        }
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase(),
    }
}
