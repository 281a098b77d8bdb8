//! Finds every import in a crate: `use`, and paths in types, bodies, attributes and macro calls.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::visit::{self, Visit};
use syn::{Meta, Stmt};

use crate::resolve::Target;
use crate::source::{Names, Segments, Source, leaves, only_in_tests};

/// One name of something outside of the file.
pub(crate) struct Import {
    /// The index of the file that imports.
    pub(crate) file: usize,
    /// The module in it that does.
    pub(crate) module: usize,
    pub(crate) line: usize,
    /// The path as written.
    pub(crate) path: String,
    pub(crate) target: Target,
}

/// All imports of `source`, without those of its tests.
pub(crate) fn imports(source: &Source) -> Vec<Import> {
    let mut found = Vec::new();
    for (index, file) in source.files.iter().enumerate() {
        let Some(module) = file.module.filter(|module| !source.modules[*module].test) else { continue };
        let mut reader = Reader { source, file: index, module, scopes: Vec::new(), found: Vec::new() };
        file.items.iter().for_each(|item| reader.visit_item(item));
        found.append(&mut reader.found);
    }
    found
}

struct Reader<'a> {
    source: &'a Source,
    file: usize,
    module: usize,
    /// The names of the blocks around, the innermost last.
    scopes: Vec<Names>,
    found: Vec<Import>,
}

impl Reader<'_> {
    fn record(&mut self, path: &Segments, line: usize) {
        for target in self.source.resolve(self.module, &self.scopes, path) {
            self.push(path.to_string(), line, target);
        }
    }

    fn push(&mut self, path: String, line: usize, target: Target) {
        self.found.push(Import { file: self.file, module: self.module, line, path, target });
    }

    fn record_use(&mut self, item: &syn::ItemUse) {
        for leaf in leaves(item) {
            if leaf.name.is_some() {
                self.record(&leaf.path, leaf.line);
            } else {
                self.record_glob(&leaf.path, leaf.line);
            }
        }
    }

    /// A glob imports the module, and of its names those that the file mentions and does not define.
    fn record_glob(&mut self, path: &Segments, line: usize) {
        for target in self.source.resolve(self.module, &self.scopes, path) {
            if let Some(module) = target.module {
                let own = &self.source.modules[self.module].names.bindings;
                let words = &self.source.files[self.file].words;
                let mut names: Vec<&String> = self.source.modules[module].names.bindings.keys().collect();
                names.retain(|name| words.contains(*name) && !own.contains_key(*name));
                names.sort();
                for name in names {
                    self.record(&path.join(std::slice::from_ref(name)), line);
                }
            }
            self.push(format!("{path}::*"), line, target);
        }
    }

    /// Paths in what is not parsed: macro calls and attributes.
    fn read_tokens(&mut self, tokens: TokenStream, strings_are_paths: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct = |at: usize, char: char| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == char);
        let joint = |at: usize| {
            matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == ':' && it.spacing() == Spacing::Joint)
                && punct(at + 1, ':')
        };
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Group(group) => self.read_tokens(group.stream(), strings_are_paths),
                TokenTree::Literal(literal) if strings_are_paths => self.read_string(literal),
                TokenTree::Ident(ident) if ident == "use" => {
                    let end = (at..tokens.len()).find(|at| punct(*at, ';')).unwrap_or(at);
                    let statement = tokens[at..=end].iter().cloned().collect();
                    if let Ok(item) = syn::parse2::<syn::ItemUse>(statement) {
                        self.record_use(&item);
                        at = end;
                    }
                }
                TokenTree::Ident(first) => {
                    // Not a method, not a macro's variable.
                    let begins = at == 0 || !(punct(at - 1, '.') || punct(at - 1, '$') && first != "crate");
                    let after_colons = at >= 2 && joint(at - 2);
                    let absolute = after_colons
                        && (at == 2 || !matches!(tokens[at - 3], TokenTree::Ident(_)) && !punct(at - 3, '>'));
                    let mut path = Segments { absolute, names: vec![first.unraw().to_string()] };
                    while let (true, Some(TokenTree::Ident(next))) = (joint(at + 1), tokens.get(at + 3)) {
                        path.names.push(next.unraw().to_string());
                        at += 3;
                    }
                    if begins && after_colons == absolute {
                        self.record_path(&path, first);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    /// A string in an attribute can be a path: `#[serde(with = "crate::duration")]`.
    fn read_string(&mut self, literal: &proc_macro2::Literal) {
        if let Ok(syn::Lit::Str(text)) = syn::parse_str(&literal.to_string())
            && let Ok(path) = text.parse_with(syn::Path::parse_mod_style)
            && path.segments.len() > 1
        {
            self.record(&Segments::of(&path), literal.span().start().line);
        }
    }

    /// One name alone is of this file, or a `use` brings it.
    fn record_path(&mut self, path: &Segments, first: &Ident) {
        if path.names.len() > 1 {
            self.record(path, first.span().start().line);
        }
    }
}

/// Leaves out what only tests see.
macro_rules! skip_tests {
    ($($visit:ident: $node:ident),* $(,)?) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !only_in_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Reader<'_> {
    skip_tests! {
        visit_arm: Arm,
        visit_expr_block: ExprBlock,
        visit_field: Field,
        visit_field_value: FieldValue,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_fn: ImplItemFn,
        visit_impl_item_type: ImplItemType,
        visit_item_const: ItemConst,
        visit_item_enum: ItemEnum,
        visit_item_fn: ItemFn,
        visit_item_impl: ItemImpl,
        visit_item_macro: ItemMacro,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_trait: ItemTrait,
        visit_item_type: ItemType,
        visit_item_union: ItemUnion,
        visit_local: Local,
        visit_stmt_macro: StmtMacro,
        visit_trait_item_fn: TraitItemFn,
        visit_variant: Variant,
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !only_in_tests(&item.attrs) {
            self.record_use(item);
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let path = Segments { absolute: true, names: vec![item.ident.to_string()] };
        self.record(&path, item.ident.span().start().line);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if only_in_tests(&item.attrs) {
            return;
        }
        let outside = self.module;
        if item.content.is_some() {
            self.module = self.source.child(outside, &item.ident.unraw().to_string()).unwrap_or(outside);
        }
        visit::visit_item_mod(self, item);
        self.module = outside;
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        let items = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(item) => Some(item),
            _ => None,
        });
        self.scopes.push(Names::of(items));
        visit::visit_block(self, block);
        self.scopes.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            self.record_path(&Segments::of(path), &first.ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(in crate::a)` says who may see it, and imports nothing.
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.read_tokens(call.tokens.clone(), false);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.visit_path(attribute.path());
        match &attribute.meta {
            Meta::List(list) => self.read_tokens(list.tokens.clone(), true),
            Meta::NameValue(pair) if !attribute.path().is_ident("doc") => self.visit_expr(&pair.value),
            Meta::Path(_) | Meta::NameValue(_) => {}
        }
    }
}
