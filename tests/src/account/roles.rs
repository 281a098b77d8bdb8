//! Roles and instance profiles: new ones are invisible at first.

use std::collections::HashMap;

use super::answer::{Answer, AwsError};
use super::request::Request;
use super::state::State;

/// What the front knows of roles beyond moto.
#[derive(Default)]
pub(super) struct Roles {
    /// For new roles and profiles, how many uses of each kind do not see them yet.
    to_come: HashMap<String, HashMap<String, u32>>,
}

impl State {
    pub(super) async fn create_role(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let answer = self.forward(request).await;
        if answer.ok() {
            self.roles.to_come.insert(format!("role {}", request.get("RoleName")), HashMap::new());
        }
        Ok(answer)
    }

    pub(super) async fn create_instance_profile(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let answer = self.forward(request).await;
        if answer.ok() {
            let name = request.get("InstanceProfileName");
            self.roles.to_come.insert(format!("profile {name}"), HashMap::new());
            self.profile_is_new(name);
        }
        Ok(answer)
    }

    pub(super) async fn use_role(&mut self, request: &Request) -> Result<Answer, AwsError> {
        // What comes right after the creation. Later calls come to a role that everyone has heard of.
        if ["PutRolePolicy", "AddRoleToInstanceProfile"].contains(&request.action.as_str()) {
            self.is_visible("role", request.get("RoleName"), &request.action)?;
            self.is_visible("profile", request.get("InstanceProfileName"), &request.action)?;
        }
        let answer = self.forward(request).await;
        // moto breaks down over a role that is not in the profile.
        if answer.status >= 500 && request.action == "RemoveRoleFromInstanceProfile" {
            let text = format!("The role with name {} cannot be found.", request.get("RoleName"));
            return Err(AwsError::new(404, "NoSuchEntity", text));
        }
        Ok(answer)
    }

    fn is_visible(&mut self, what: &str, name: &str, by: &str) -> Result<(), AwsError> {
        let invisible = self.options.invisible_roles;
        let Some(uses) = self.roles.to_come.get_mut(&format!("{what} {name}")) else {
            return Ok(());
        };
        let used = uses.entry(by.to_owned()).or_default();
        if *used >= invisible {
            return Ok(());
        }
        *used += 1;
        let text = match what {
            "role" => format!("The role with name {name} cannot be found."),
            _ => format!("Instance Profile {name} cannot be found."),
        };
        Err(AwsError::new(404, "NoSuchEntity", text))
    }
}
