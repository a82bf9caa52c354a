//! The `#[task]` attribute of `loopabull-task`.
//!
//! The macro checks the form of a task's signature, and generates the code that exports the task from a
//! component. It does not check types. Instead the generated code passes the task to functions of
//! `loopabull_task::entry`, so that the compiler reports a wrong type as a type error at the name of the
//! task.

#![deny(missing_docs)]

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType};

const ARGUMENTS: &str =
    "a task takes a message and optionally `cx: &Context`, and no other arguments";

/// Makes a function the task of this component.
///
/// The function takes a `Message<T>`, and optionally a `&Context`, and returns `loopabull_task::Result`. The
/// function remains a plain function, so that tests can call it. In a build for WebAssembly, the function is
/// also exported as `loopabull:task/handler`. A component has exactly one task.
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item).unwrap_or_else(|error| error.into_compile_error().into())
}

fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if let Some(argument) = arguments.into_iter().next() {
        return Err(Error::new(
            argument.span().into(),
            "`#[task]` takes no arguments; set topics, limits and retries in the task's manifest",
        ));
    }
    let function: ItemFn = syn::parse(item)
        .map_err(|error| Error::new(error.span(), "`#[task]` can only be applied to a function"))?;
    let check = match check(&function)? {
        Arguments::Message => quote!(check),
        Arguments::MessageAndContext => quote!(check_with_context),
    };

    let name = &function.sig.ident;
    let generated = quote_spanned! { name.span() =>
        #function

        const _: () = ::loopabull_task::entry::#check(#name);

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Exported;

            impl ::loopabull_task::entry::Guest for Exported {
                fn handle(
                    message: ::loopabull_task::entry::WireMessage,
                ) -> ::core::result::Result<(), ::loopabull_task::entry::WireFailure> {
                    ::loopabull_task::entry::handle(message, #name)
                }
            }

            ::loopabull_task::bindings::export!(
                Exported with_types_in ::loopabull_task::bindings
            );
        };
    };
    Ok(generated.into())
}

/// The arguments of a task.
#[derive(Debug)]
enum Arguments {
    Message,
    MessageAndContext,
}

/// Returns the arguments of a task. Refuses signatures for which the compiler's type error would be hard to
/// understand.
fn check(function: &ItemFn) -> syn::Result<Arguments> {
    let signature = &function.sig;
    if let Some(word) = &signature.asyncness {
        return Err(Error::new(
            word.span(),
            "a task cannot be `async`, because a component instance handles only one message",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a task cannot be generic; name the type of the body, as in `Message<Body>`",
        ));
    }
    let mut inputs = signature.inputs.iter();
    let arguments = match (inputs.next(), inputs.next(), inputs.next()) {
        (Some(FnArg::Receiver(receiver)), ..) => {
            return Err(Error::new(
                receiver.span(),
                "a task must be a free function without `self`",
            ));
        }
        (Some(_), None, _) => Arguments::Message,
        (Some(_), Some(_), None) => Arguments::MessageAndContext,
        (None, ..) => return Err(Error::new(signature.ident.span(), ARGUMENTS)),
        (_, _, Some(third)) => return Err(Error::new(third.span(), ARGUMENTS)),
    };
    if let ReturnType::Default = signature.output {
        return Err(Error::new(
            signature.ident.span(),
            "a task must return `loopabull_task::Result`",
        ));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    fn check(source: &str, expected: &str) {
        let function = syn::parse_str(source).expect("the source is a function");
        let found = match super::check(&function) {
            Ok(arguments) => format!("{arguments:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_function_with_a_message_is_accepted() {
        check("fn f(message: Message<Body>) -> Result { Ok(()) }", "Message");
    }

    #[test]
    fn a_function_with_a_message_and_the_context_is_accepted() {
        check("fn f(m: Message, cx: &Context) -> Result { Ok(()) }", "MessageAndContext");
    }

    #[test]
    fn a_function_without_arguments_is_refused() {
        check("fn f() -> Result { Ok(()) }", super::ARGUMENTS);
    }

    #[test]
    fn a_function_with_three_arguments_is_refused() {
        check("fn f(a: Message, cx: &Context, c: u8) -> Result { Ok(()) }", super::ARGUMENTS);
    }

    #[test]
    fn a_function_without_a_result_is_refused() {
        check("fn f(message: Message) {}", "a task must return `loopabull_task::Result`");
    }

    #[test]
    fn a_method_is_refused() {
        check("fn f(&self) -> Result { Ok(()) }", "a task must be a free function without `self`");
    }

    #[test]
    fn an_async_function_is_refused() {
        check(
            "async fn f(message: Message) -> Result { Ok(()) }",
            "a task cannot be `async`, because a component instance handles only one message",
        );
    }

    #[test]
    fn a_generic_function_is_refused() {
        check(
            "fn f<T>(message: Message<T>) -> Result { Ok(()) }",
            "a task cannot be generic; name the type of the body, as in `Message<Body>`",
        );
    }
}
