//! Shape of Rust source: module heads, lengths, where `unsafe` may stand, tests that always run, traffic modules.
//!
//! Works on syntax, not on text, where text could be fooled. Style that clippy checks is left to clippy.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::{Finding, SourceFile};
use crate::layers::{TRAFFIC_MODULES, TRAFFIC_USERS};

/// Longest function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest file.
const FILE_LINES_MAX: usize = 800;
/// Length at which a file is worth a thought.
const FILE_LINES_NOTE: usize = 500;
/// The only home of `unsafe`.
const UNSAFE_HOME: &str = "crates/ambit-net/src/linux";

/// Checks one Rust file.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings: Vec<Finding> = head(file).into_iter().collect();
    findings.extend(length(file));
    let Ok(tokens) = file.text.parse::<TokenStream>() else {
        findings.push(unreadable(file, 1));
        return findings;
    };
    findings.extend(words_in_code(file, tokens.clone()));
    match syn::parse2::<syn::File>(tokens) {
        Ok(syntax) => {
            let mut functions = Functions { file, findings: Vec::new() };
            functions.visit_file(&syntax);
            findings.extend(functions.findings);
        }
        Err(error) => findings.push(unreadable(file, error.span().start().line)),
    }
    findings
}

fn unreadable(file: &SourceFile, line: usize) -> Finding {
    Finding::error(&file.path, line, "this is no Rust the checks can read", "make it compile first")
}

fn head(file: &SourceFile) -> Option<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let told = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    (!told).then(|| {
        Finding::error(
            &file.path,
            1,
            "the module does not say what it is",
            "open it with `//!`: what it decides or does, and what it deliberately does not",
        )
    })
}

fn length(file: &SourceFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    let mend = "split it by what it decides; tests go to tests.rs beside it";
    if lines > FILE_LINES_MAX {
        let what = format!("the file has {lines} lines, more than {FILE_LINES_MAX}");
        Some(Finding::error(&file.path, FILE_LINES_MAX + 1, what, mend))
    } else if lines > FILE_LINES_NOTE {
        let what = format!("the file has {lines} lines, more than {FILE_LINES_NOTE}");
        Some(Finding::note(&file.path, FILE_LINES_NOTE + 1, what, mend))
    } else {
        None
    }
}

/// Measures every function, methods and nested ones included.
struct Functions<'a> {
    file: &'a SourceFile,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let (start, end) = (signature.fn_token.span.start().line, body.brace_token.span.close().end().line);
        let lines = end - start + 1;
        if lines > FUNCTION_LINES_MAX {
            self.findings.push(Finding::error(
                &self.file.path,
                start,
                format!("fn {} has {lines} lines, more than {FUNCTION_LINES_MAX}", signature.ident),
                "separate the decision from the act; move rows of a test into a table",
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Walks the tokens, macros included, for what must not be written here.
fn words_in_code(file: &SourceFile, tokens: TokenStream) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut open = vec![tokens];
    while let Some(stream) = open.pop() {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        for (index, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    findings.extend(unsafe_outside_home(file, ident.span()))
                }
                TokenTree::Ident(ident) if ident == "ambit_net" => {
                    findings.extend(traffic_modules(file, &trees[index..]))
                }
                TokenTree::Group(group) => {
                    if is_attribute(&trees[..index], group.delimiter()) {
                        findings.extend(skipped_test(file, group.stream()));
                    }
                    open.push(group.stream());
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    findings
}

fn unsafe_outside_home(file: &SourceFile, at: Span) -> Option<Finding> {
    (!file.path.starts_with(UNSAFE_HOME)).then(|| {
        Finding::error(
            &file.path,
            at.start().line,
            format!("unsafe outside {UNSAFE_HOME}"),
            "use the safe interface of socket2, nix or rustix, or give ambit_net::linux a safe function for it",
        )
    })
}

/// Whether a group is an attribute's bracket: `#[…]` or `#![…]`.
fn is_attribute(before: &[TokenTree], delimiter: Delimiter) -> bool {
    let punct =
        |tree: Option<&TokenTree>, c: char| matches!(tree, Some(TokenTree::Punct(p)) if p.as_char() == c);
    let mut back = before.iter().rev();
    let last = back.next();
    let hash = punct(last, '#') || (punct(last, '!') && punct(back.next(), '#'));
    delimiter == Delimiter::Bracket && hash
}

/// Finds `ignore` and `should_panic` as attributes, also behind `cfg_attr`.
fn skipped_test(file: &SourceFile, attribute: TokenStream) -> Option<Finding> {
    let mut words = idents(attribute).into_iter();
    let name = words.next()?;
    let found = if name == "cfg_attr" {
        words.find(|word| word == "ignore" || word == "should_panic")
    } else {
        Some(name).filter(|word| word == "ignore" || word == "should_panic")
    }?;
    let mend = if found == "ignore" {
        "a test runs or is removed; one that needs rights fails when AMBIT_REQUIRE_NETNS=1"
    } else {
        "return an error and compare it: a panic for another reason would pass too"
    };
    Some(Finding::error(&file.path, found.span().start().line, format!("a test marked {found}"), mend))
}

fn idents(stream: TokenStream) -> Vec<proc_macro2::Ident> {
    let mut found = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => found.push(ident),
            TokenTree::Group(group) => found.extend(idents(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// Finds `ambit_net::tunnel` and its like, alone or in a list, in code that carries no traffic.
fn traffic_modules(file: &SourceFile, from: &[TokenTree]) -> Vec<Finding> {
    if TRAFFIC_USERS.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    let named: Vec<proc_macro2::Ident> = match from.get(3) {
        Some(TokenTree::Ident(ident)) => vec![ident.clone()],
        Some(TokenTree::Group(list)) => first_segments(list.stream()),
        Some(TokenTree::Punct(_) | TokenTree::Literal(_)) | None => Vec::new(),
    };
    let refused = named.iter().filter(|ident| TRAFFIC_MODULES.iter().any(|module| ident == module));
    refused
        .map(|ident| {
            Finding::error(
                &file.path,
                ident.span().start().line,
                format!("ambit_net::{ident} outside the data path"),
                "only ztunnel carries traffic; use ambit_net's sockets, TLS or gRPC",
            )
        })
        .collect()
}

/// The first identifier of each entry of a use list.
fn first_segments(list: TokenStream) -> Vec<proc_macro2::Ident> {
    let mut found = Vec::new();
    let mut at_start = true;
    for tree in list {
        match tree {
            TokenTree::Ident(ident) if at_start => {
                found.push(ident);
                at_start = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => at_start = true,
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Group(_) | TokenTree::Literal(_) => {
                at_start = false
            }
        }
    }
    found
}
