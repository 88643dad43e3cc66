//! Which steps and secrets an expression reads, found without running it.
//!
//! References are a workflow's edges, so none may be missed and none may be computed. The walk follows the four
//! values that matter (the scope, `$steps`, `$secrets`, one step) through the term: a path with literal keys is a
//! reference; anything that would take such a value as a whole (`$steps[$name]`, `$steps | keys`, `. | tojson`) is
//! refused, with a hint to name the step. Everything else is plain data and of no interest here.

use std::sync::Arc;

use jaq_core::{
    load::{
        lex::StrPart,
        parse::{BinaryOp, Def, Pattern, Term},
    },
    path::Part,
};

use super::{ExpressionError, ExpressionErrorKind, grammar};
use crate::document::hint;

/// A step or a secret that an expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: Arc<str>,
    /// Where the name stands (its dot or bracket included), in bytes from the start of the expression's source.
    pub offset: usize,
}

/// What [`find`] finds.
#[derive(Default)]
pub(super) struct References {
    pub(super) steps: Vec<Reference>,
    pub(super) secrets: Vec<Reference>,
    /// Where `$error` first stands.
    pub(super) error_at: Option<usize>,
    pub(super) errors: Vec<ExpressionError>,
}

/// The variables of the language, without their `$`.
const VARIABLES: [&str; 5] = ["input", "steps", "trigger", "secrets", "error"];
/// Those of the language's later parts.
const LATER_VARIABLES: [&str; 2] = ["item", "index"];
/// The fields of a step in `$steps`.
const STEP_FIELDS: [&str; 3] = ["output", "status", "error"];

/// Functions that jq has elsewhere and that an expression must not have: they would make it depend on something
/// other than the run's data.
const ABSENT: [(&str, &str); 12] = [
    ("env", "expressions cannot read the environment"),
    ("now", "expressions cannot read the clock"),
    ("input", "the run's input is `$input`"),
    ("inputs", "the run's input is `$input`"),
    ("halt", "expressions cannot end the program"),
    ("halt_error", "expressions cannot end the program; `error` fails the step"),
    ("localtime", "there is no local time zone; use `gmtime`"),
    ("strflocaltime", "there is no local time zone; use `strftime`"),
    ("input_filename", "there are no files"),
    ("input_line_number", "there are no files"),
    ("import", "expressions have no modules"),
    ("include", "expressions have no modules"),
];

/// Functions, with their numbers of arguments, that do not look at their input (but evaluate their arguments on it).
const BLIND: [(&str, usize); 21] = [
    ("empty", 0),
    ("true", 0),
    ("false", 0),
    ("null", 0),
    ("nan", 0),
    ("infinite", 0),
    ("not", 0),
    ("error", 1),
    ("range", 1),
    ("range", 2),
    ("range", 3),
    ("isempty", 1),
    ("any", 2),
    ("all", 2),
    ("add", 1),
    ("first", 1),
    ("last", 1),
    ("limit", 2),
    ("skip", 2),
    ("nth", 2),
    ("select", 1),
];
/// Those of [`BLIND`] that give back what their last argument gives.
const PASSING: [&str; 5] = ["first", "last", "limit", "skip", "nth"];

/// Finds the references of a term of `source`.
pub(super) fn find(source: &str, term: &Term<&str>) -> References {
    let mut walk =
        Walk { source, at: 0, names: Vec::new(), probes: Vec::new(), found: References::default() };
    let result = walk.term(term, Flow::SCOPE);
    walk.consume(result);
    walk.found.errors.dedup();
    walk.found
}

/// Which of the values that matter may flow through a place; a set.
#[derive(Clone, Copy, PartialEq)]
struct Flow(u8);

impl Flow {
    const DATA: Self = Self(0);
    const SCOPE: Self = Self(1);
    const STEPS: Self = Self(2);
    const SECRETS: Self = Self(4);
    const STEP: Self = Self(8);
    /// The input of the local function whose body is being walked: any of the others, or data.
    const PROBE: Self = Self(16);

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the body of a local function does with its input.
#[derive(Default)]
struct Probe {
    reads: bool,
    gives_to_parameters: bool,
}

enum Name<'s> {
    Variable(&'s str),
    Parameter(&'s str),
    Function { name: &'s str, params: Vec<&'s str>, reads: bool, gives_to_parameters: bool },
}

struct Walk<'s> {
    source: &'s str,
    /// The last place in the source that a term pointed at: where to tell a mistake of a term that has no place.
    at: usize,
    names: Vec<Name<'s>>,
    probes: Vec<Probe>,
    found: References,
}

impl<'s> Walk<'s> {
    fn term(&mut self, term: &Term<&'s str>, ctx: Flow) -> Flow {
        match term {
            Term::Id => ctx,
            Term::Recurse => self.consume(ctx),
            Term::Num(number) => {
                self.see(number);
                Flow::DATA
            }
            Term::Str(_, parts) => {
                for part in parts {
                    match part {
                        StrPart::Term(term) => {
                            self.consumed(term, ctx);
                        }
                        StrPart::Str(text) => self.see(text),
                        StrPart::Char(_) => {}
                    }
                }
                Flow::DATA
            }
            Term::Arr(None) => Flow::DATA,
            Term::Arr(Some(inner)) | Term::Neg(inner) => self.consumed(inner, ctx),
            Term::Obj(entries) => self.object(entries, ctx),
            Term::BinOp(left, op, right) => self.binary(left, op, right, ctx),
            Term::Label(_, inner) => self.term(inner, ctx),
            Term::Break(_) => Flow::DATA,
            Term::Fold(_, source, pattern, args) => self.fold(source, pattern, args, ctx),
            Term::TryCatch(inner, catch) => {
                let flow = self.term(inner, ctx);
                catch.as_ref().map_or(flow, |catch| flow.or(self.term(catch, Flow::DATA)))
            }
            Term::IfThenElse(branches, otherwise) => {
                let mut flow = Flow::DATA;
                for (condition, then) in branches {
                    self.term(condition, ctx);
                    flow = flow.or(self.term(then, ctx));
                }
                flow.or(otherwise.as_ref().map_or(ctx, |otherwise| self.term(otherwise, ctx)))
            }
            Term::Def(defs, inner) => self.definitions(defs, inner, ctx),
            Term::Call(name, args) => self.call(name, args, ctx),
            Term::Var(name) => self.variable(name),
            Term::Path(head, path) => {
                let mut flow = self.term(head, ctx);
                for (part, _) in &path.0 {
                    flow = self.part(part, flow, ctx);
                }
                flow
            }
        }
    }

    fn object(&mut self, entries: &[(Term<&'s str>, Option<Term<&'s str>>)], ctx: Flow) -> Flow {
        for (key, value) in entries {
            match (key, value) {
                (Term::Var(_), None) => {
                    self.consumed(key, ctx);
                }
                (key, None) => match grammar::string(key) {
                    Some(name) => {
                        self.see_term(key);
                        let flow = self.key(ctx, &name);
                        self.consume(flow);
                    }
                    None => {
                        self.consumed(key, ctx);
                        self.consume(ctx);
                    }
                },
                (key, Some(value)) => {
                    self.consumed(key, ctx);
                    self.consumed(value, ctx);
                }
            }
        }
        Flow::DATA
    }

    fn binary(
        &mut self,
        left: &Term<&'s str>,
        op: &BinaryOp<&'s str>,
        right: &Term<&'s str>,
        ctx: Flow,
    ) -> Flow {
        match op {
            BinaryOp::Pipe(None) => {
                let flow = self.term(left, ctx);
                self.term(right, flow)
            }
            BinaryOp::Pipe(Some(pattern)) => {
                let flow = self.term(left, ctx);
                let names = self.names.len();
                self.bind(pattern, flow, ctx);
                let flow = self.term(right, ctx);
                self.names.truncate(names);
                flow
            }
            BinaryOp::Comma | BinaryOp::Alt => {
                let flow = self.term(left, ctx);
                flow.or(self.term(right, ctx))
            }
            BinaryOp::Or | BinaryOp::And | BinaryOp::Math(_) | BinaryOp::Cmp(_) => {
                self.consumed(left, ctx);
                self.consumed(right, ctx)
            }
            // These give back their whole input, changed.
            BinaryOp::Update => {
                let flow = self.term(left, ctx);
                self.consumed(right, flow);
                self.consume(ctx)
            }
            BinaryOp::Assign | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                self.term(left, ctx);
                self.consumed(right, ctx);
                self.consume(ctx)
            }
        }
    }

    fn fold(
        &mut self,
        source: &Term<&'s str>,
        pattern: &Pattern<&'s str>,
        args: &[Term<&'s str>],
        ctx: Flow,
    ) -> Flow {
        let flow = self.term(source, ctx);
        let names = self.names.len();
        if let Some(start) = args.first() {
            self.consumed(start, ctx);
        }
        self.bind(pattern, flow, ctx);
        for arg in args.iter().skip(1) {
            self.consumed(arg, Flow::DATA);
        }
        self.names.truncate(names);
        Flow::DATA
    }

    /// Gives the pattern's variables their names. None of them may hold a value that matters.
    fn bind(&mut self, pattern: &Pattern<&'s str>, flow: Flow, ctx: Flow) {
        match pattern {
            Pattern::Var(name) => {
                self.see(name);
                self.consume(flow);
                self.names.push(Name::Variable(name));
            }
            Pattern::Arr(patterns) => {
                let flow = self.consume(flow);
                patterns.iter().for_each(|pattern| self.bind(pattern, flow, ctx));
            }
            Pattern::Obj(entries) => {
                for (key, pattern) in entries {
                    let inner = match grammar::string(key) {
                        Some(name) => {
                            self.see_term(key);
                            self.key(flow, &name)
                        }
                        None => {
                            self.consumed(key, ctx);
                            self.consume(flow)
                        }
                    };
                    self.bind(pattern, inner, ctx);
                }
            }
        }
    }

    fn definitions(&mut self, defs: &[Def<&'s str>], inner: &Term<&'s str>, ctx: Flow) -> Flow {
        let names = self.names.len();
        for def in defs {
            let at = self.names.len();
            let function = |probe: Probe| Name::Function {
                name: def.name,
                params: def.args.clone(),
                reads: probe.reads,
                gives_to_parameters: probe.gives_to_parameters,
            };
            // A function that calls itself reads its input if the rest of its body does.
            self.names.push(function(Probe::default()));
            for param in &def.args {
                self.names.push(if param.starts_with('$') {
                    Name::Variable(param)
                } else {
                    Name::Parameter(param)
                });
            }
            self.probes.push(Probe::default());
            let flow = self.term(&def.body, Flow::PROBE);
            self.consume(flow);
            let probe = self.probes.pop().unwrap_or_default();
            self.names.truncate(at);
            self.names.push(function(probe));
        }
        let flow = self.term(inner, ctx);
        self.names.truncate(names);
        flow
    }

    fn call(&mut self, name: &'s str, args: &[Term<&'s str>], ctx: Flow) -> Flow {
        self.see(name);
        let at = self.at;
        let local = self.names.iter().rev().find_map(|known| match known {
            Name::Parameter(param) if *param == name && args.is_empty() => Some(None),
            Name::Function { name: known, params, reads, gives_to_parameters }
                if *known == name && params.len() == args.len() =>
            {
                Some(Some((params.clone(), *reads, *gives_to_parameters)))
            }
            _ => None,
        });
        match local {
            Some(None) => {
                if let (true, Some(probe)) = (ctx.has(Flow::PROBE), self.probes.last_mut()) {
                    probe.gives_to_parameters = true;
                }
                self.consume(Flow(ctx.0 & !Flow::PROBE.0))
            }
            Some(Some((params, reads, gives))) => {
                for (param, arg) in params.iter().zip(args) {
                    let on = if gives || param.starts_with('$') { ctx } else { Flow::DATA };
                    self.consumed(arg, on);
                }
                self.at = at;
                if reads { self.consume(ctx) } else { Flow::DATA }
            }
            None => self.builtin(name, args, ctx),
        }
    }

    fn builtin(&mut self, name: &'s str, args: &[Term<&'s str>], ctx: Flow) -> Flow {
        let at = self.at;
        if let Some((_, why)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
            let hint = Some((*why).to_owned());
            self.mistake(ExpressionErrorKind::Unknown, format!("`{name}` does not exist here"), hint);
            return Flow::DATA;
        }
        if !BLIND.contains(&(name, args.len())) {
            let on = if ctx.has(Flow::PROBE) { ctx } else { Flow::DATA };
            for arg in args {
                self.consumed(arg, on);
            }
            self.at = at;
            return self.consume(ctx);
        }
        let mut last = Flow::DATA;
        for (index, arg) in args.iter().enumerate() {
            let on = if matches!(name, "any" | "all") && index == 1 { Flow::DATA } else { ctx };
            last = self.term(arg, on);
            if !(PASSING.contains(&name) && index + 1 == args.len()) && name != "select" {
                self.consume(last);
            }
        }
        match name {
            "select" => ctx,
            _ if PASSING.contains(&name) => last,
            _ => Flow::DATA,
        }
    }

    fn variable(&mut self, name: &'s str) -> Flow {
        self.see(name);
        if self.names.iter().any(|known| matches!(known, Name::Variable(known) if *known == name)) {
            return Flow::DATA;
        }
        let bare = name.trim_start_matches('$');
        match bare {
            "input" | "trigger" => Flow::DATA,
            "error" => {
                self.found.error_at.get_or_insert(self.at);
                Flow::DATA
            }
            "steps" => Flow::STEPS,
            "secrets" => Flow::SECRETS,
            _ if LATER_VARIABLES.contains(&bare) => {
                self.later(name);
                Flow::DATA
            }
            "ENV" | "__prog_args" => {
                let hint = Some("expressions cannot read the environment".to_owned());
                self.mistake(ExpressionErrorKind::Unknown, format!("`{name}` does not exist here"), hint);
                Flow::DATA
            }
            _ => {
                let locals = self.names.iter().filter_map(|name| match name {
                    Name::Variable(name) => Some(name.trim_start_matches('$')),
                    _ => None,
                });
                let known: Vec<&str> = VARIABLES.into_iter().chain(locals).collect();
                let hint =
                    hint::nearest(bare, known).map(|near| format!("did you mean `${near}`?")).or_else(|| {
                        Some("there are `$input`, `$steps`, `$trigger`, `$secrets` and `$error`".to_owned())
                    });
                self.mistake(ExpressionErrorKind::Unknown, format!("there is no variable `{name}`"), hint);
                Flow::DATA
            }
        }
    }

    fn part(&mut self, part: &Part<Term<&'s str>>, flow: Flow, ctx: Flow) -> Flow {
        let at = self.at;
        match part {
            Part::Index(index) => {
                if let Some(name) = grammar::string(index) {
                    self.see_term(index);
                    return self.key(flow, &name);
                }
                self.consumed(index, ctx);
            }
            Part::Range(from, to) => {
                for end in [from, to].into_iter().flatten() {
                    self.consumed(end, ctx);
                }
            }
        }
        // What is taken as a whole stands before the brackets.
        self.at = at;
        self.consume(flow)
    }

    /// `.name` on what flows here.
    fn key(&mut self, flow: Flow, name: &str) -> Flow {
        let mut result = Flow::DATA;
        let offset = self.at;
        if flow.has(Flow::SCOPE) {
            match name {
                "steps" => result = result.or(Flow::STEPS),
                "secrets" => result = result.or(Flow::SECRETS),
                "input" | "trigger" => {}
                "error" => {
                    self.found.error_at.get_or_insert(offset);
                }
                _ if LATER_VARIABLES.contains(&name) => self.later(&format!(".{name}")),
                _ => {
                    let hint = match hint::nearest(name, VARIABLES) {
                        Some(near) => format!("did you mean `.{near}`?"),
                        None => {
                            "`.` is `{input, steps, trigger, secrets, error}`; a step's data is `$steps.NAME.output`"
                                .into()
                        }
                    };
                    self.mistake(
                        ExpressionErrorKind::Unknown,
                        format!("the scope has no `{name}`"),
                        Some(hint),
                    );
                }
            }
        }
        if flow.has(Flow::STEPS) {
            self.found.steps.push(Reference { name: name.into(), offset });
            result = result.or(Flow::STEP);
        }
        if flow.has(Flow::SECRETS) {
            self.found.secrets.push(Reference { name: name.into(), offset });
        }
        if flow.has(Flow::STEP) && !STEP_FIELDS.contains(&name) {
            let hint = match hint::nearest(name, STEP_FIELDS) {
                Some(near) => format!("did you mean `.{near}`?"),
                None => format!("what the step gave is its `output`: write `.output.{name}`"),
            };
            let message = format!("a step has `output`, `status` and `error`, but no `{name}`");
            self.mistake(ExpressionErrorKind::Unknown, message, Some(hint));
        }
        if flow.has(Flow::PROBE) {
            self.consume(Flow::PROBE);
        }
        result
    }

    fn consumed(&mut self, term: &Term<&'s str>, ctx: Flow) -> Flow {
        let flow = self.term(term, ctx);
        self.consume(flow)
    }

    /// Something takes the whole of what flows here: fine for data and for one step, refused for the rest.
    fn consume(&mut self, flow: Flow) -> Flow {
        if let (true, Some(probe)) = (flow.has(Flow::PROBE), self.probes.last_mut()) {
            probe.reads = true;
        }
        let message = if flow.has(Flow::SCOPE) {
            "`.` as a whole would read every step"
        } else if flow.has(Flow::STEPS) {
            "which step this reads is known only when it runs"
        } else if flow.has(Flow::SECRETS) {
            "which secret this uses is known only when it runs"
        } else {
            return Flow::DATA;
        };
        let hint = if flow.has(Flow::SECRETS) && !flow.has(Flow::SCOPE.or(Flow::STEPS)) {
            "name the secret: `$secrets.NAME`"
        } else {
            "name what it needs: `$input`, `$steps.NAME.output`"
        };
        self.mistake(ExpressionErrorKind::Computed, message.to_owned(), Some(hint.to_owned()));
        Flow::DATA
    }

    fn later(&mut self, name: &str) {
        let message = format!("`{name}` does not exist in this version of Reipaz");
        self.mistake(ExpressionErrorKind::NotSupportedYet, message, None);
    }

    fn mistake(&mut self, kind: ExpressionErrorKind, message: String, hint: Option<String>) {
        let error = ExpressionError { offset: self.at, kind, message, hint };
        if !self.found.errors.contains(&error) {
            self.found.errors.push(error);
        }
    }

    fn see(&mut self, part: &str) {
        self.at = grammar::offset(self.source, part);
    }

    fn see_term(&mut self, term: &Term<&'s str>) {
        if let Term::Str(_, parts) = term
            && let Some(StrPart::Str(text)) = parts.first()
        {
            self.see(text);
        }
    }
}
