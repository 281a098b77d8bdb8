//! The parameters of the query protocol, and the errors it answers with.

use std::collections::BTreeMap;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ApiError {
    /// An error with a status of its own.
    pub(crate) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// The caller's mistake.
    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// An action that the service does not have, or this one does not play.
    pub(crate) fn invalid_action(action: &str) -> Self {
        let text = format!("The action {action} is not valid for this web service.");
        Self::bad("InvalidAction", text)
    }
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// From a form body.
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// A parameter that may be absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be there.
    pub(crate) fn require(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            let text = format!("A value for the parameter {name} is missing");
            ApiError::bad("ValidationError", text)
        })
    }

    /// A port that may be absent.
    pub(crate) fn port(&self, name: &str) -> Result<Option<u16>, ApiError> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        match self.get(name) {
            None => Ok(None),
            Some(text) => port(text).map(Some).ok_or_else(|| {
                let text = format!("Port '{text}' is not between 1 and 65535");
                ApiError::bad("ValidationError", text)
            }),
        }
    }

    /// All parameters but `Action` and `Version`, sorted by name.
    pub(crate) fn arguments(&self) -> Vec<(String, String)> {
        let arguments = self.0.iter().filter(|(name, _)| !["Action", "Version"].contains(&name.as_str()));
        arguments.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The values of `prefix.1`, `prefix.2`, … in this order.
    pub(crate) fn list(&self, prefix: &str) -> Vec<&str> {
        let name = |n| format!("{prefix}.{n}");
        let numbers = self.indices(prefix).into_iter();
        numbers.filter_map(|n| self.get(&name(n))).collect()
    }

    /// The numbers that follow `prefix.`, sorted.
    pub(crate) fn indices(&self, prefix: &str) -> Vec<u32> {
        let rests = self.0.keys().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('.'));
        let mut numbers: Vec<u32> = rests.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Refuses parameters that the action does not read: ignoring one would hide a mistake.
    /// In `known`, `N` stands for any number.
    pub(crate) fn allow(&self, known: &[&str]) -> Result<(), ApiError> {
        for key in self.0.keys() {
            let general: Vec<&str> =
                key.split('.').map(|part| if part.parse::<u32>().is_ok() { "N" } else { part }).collect();
            let general = general.join(".");
            if !["Action", "Version"].contains(&key.as_str()) && !known.contains(&general.as_str()) {
                let text = format!("The local cloud does not know the parameter {key}");
                return Err(ApiError::bad("ValidationError", text));
            }
        }
        Ok(())
    }
}
