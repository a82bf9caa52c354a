//! The `#[task]` attribute of `loopabull-task`.
//!
//! Owns the check of a task's signature and the glue that exports it from a component.
//! It must not know what a message is: the types are checked by the compiler, in
//! `loopabull_task::bindings`, so that a wrong type is an ordinary type error at the
//! task's name.

#![deny(missing_docs)]

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType};

const ARGUMENTS: &str = "a task takes the message, and `cx: &Context` if it needs it";

/// Makes a function the task of this component.
///
/// The function takes a `Message<T>`, and a `&Context` if it needs one, and returns
/// `loopabull_task::Result`. It stays a plain function, so that a test can call it. Built for Wasm, it is also exported as
/// `loopabull:task/handler`. A component has one task.
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item).unwrap_or_else(|error| error.into_compile_error().into())
}

fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if let Some(argument) = arguments.into_iter().next() {
        return Err(Error::new(
            argument.span().into(),
            "`#[task]` takes no arguments; topics, limits and retries are in the task's manifest",
        ));
    }
    let function: ItemFn = syn::parse(item)
        .map_err(|error| Error::new(error.span(), "`#[task]` goes on a function"))?;
    let check = match check(&function)? {
        Arguments::Message => quote!(check),
        Arguments::MessageAndContext => quote!(check_with_context),
    };

    let name = &function.sig.ident;
    let generated = quote_spanned! { name.span() =>
        #function

        const _: () = ::loopabull_task::bindings::#check(#name);

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Exported;

            impl ::loopabull_task::bindings::Guest for Exported {
                fn handle(
                    message: ::loopabull_task::bindings::WireMessage,
                ) -> ::core::result::Result<(), ::loopabull_task::bindings::WireFailure> {
                    ::loopabull_task::bindings::handle(message, #name)
                }
            }

            ::loopabull_task::bindings::export!(
                Exported with_types_in ::loopabull_task::bindings
            );
        };
    };
    Ok(generated.into())
}

/// What a task takes.
#[derive(Debug)]
enum Arguments {
    Message,
    MessageAndContext,
}

/// Returns what a task takes, and refuses what no type error would explain well.
fn check(function: &ItemFn) -> syn::Result<Arguments> {
    let signature = &function.sig;
    if let Some(word) = &signature.asyncness {
        return Err(Error::new(
            word.span(),
            "a task is not `async`: it works one message, then its instance is dropped",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a task is not generic; name the type of the body: `Message<Body>`",
        ));
    }
    let mut inputs = signature.inputs.iter();
    let arguments = match (inputs.next(), inputs.next(), inputs.next()) {
        (Some(FnArg::Receiver(receiver)), ..) => {
            return Err(Error::new(receiver.span(), "a task is a free function, it has no `self`"));
        }
        (Some(_), None, _) => Arguments::Message,
        (Some(_), Some(_), None) => Arguments::MessageAndContext,
        (None, ..) => return Err(Error::new(signature.ident.span(), ARGUMENTS)),
        (_, _, Some(third)) => return Err(Error::new(third.span(), ARGUMENTS)),
    };
    if let ReturnType::Default = signature.output {
        return Err(Error::new(signature.ident.span(), "a task returns `loopabull_task::Result`"));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    fn check(source: &str, expected: &str) {
        let function = syn::parse_str(source).expect("the test's function parses");
        let found = match super::check(&function) {
            Ok(arguments) => format!("{arguments:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn function_of_a_message_is_accepted() {
        check("fn f(message: Message<Body>) -> Result { Ok(()) }", "Message");
    }

    #[test]
    fn function_of_a_message_and_the_context_is_accepted() {
        check("fn f(m: Message, cx: &Context) -> Result { Ok(()) }", "MessageAndContext");
    }

    #[test]
    fn function_without_arguments_is_refused() {
        check("fn f() -> Result { Ok(()) }", super::ARGUMENTS);
    }

    #[test]
    fn function_of_three_arguments_is_refused() {
        check("fn f(a: Message, cx: &Context, c: u8) -> Result { Ok(()) }", super::ARGUMENTS);
    }

    #[test]
    fn function_that_returns_nothing_is_refused() {
        check("fn f(message: Message) {}", "a task returns `loopabull_task::Result`");
    }

    #[test]
    fn method_is_refused() {
        check("fn f(&self) -> Result { Ok(()) }", "a task is a free function, it has no `self`");
    }

    #[test]
    fn async_function_is_refused() {
        check(
            "async fn f(message: Message) -> Result { Ok(()) }",
            "a task is not `async`: it works one message, then its instance is dropped",
        );
    }

    #[test]
    fn generic_function_is_refused() {
        check(
            "fn f<T>(message: Message<T>) -> Result { Ok(()) }",
            "a task is not generic; name the type of the body: `Message<Body>`",
        );
    }
}
