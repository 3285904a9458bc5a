//! Credentials: tried at a registry, kept, told, forgotten.

use crate::engine::{Engine, registry};
use crate::image::access::{Access, Network};
use crate::image::auth::{Credentials, Refused};
use crate::image::auth_file::{AuthFiles, Removed, normal};
use crate::image::conf::Registries;
use crate::image::registry::StatusError;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::path::{Path, PathBuf};

/// A registry one wants to be known to.
pub struct Session {
    /// As it stands in the file: `HOST[:PORT][/NAMESPACE]`.
    pub key: String,
    files: AuthFiles,
    network: Network,
}

impl Session {
    /// For a registry, or the first of the search list.
    pub fn open(engine: &Engine, access: Access, authfile: Option<PathBuf>, registry: Option<&str>) -> Result<Session> {
        let network = registry::network(engine, access)?;
        let key = match registry {
            Some(registry) => key(registry)?,
            None => {
                network.registries.search_list().into_iter().next().context("please specify a registry to log in to")?
            }
        };
        let helpers = network.registries.credential_helpers.clone();
        let files = AuthFiles::new(authfile.as_deref(), helpers, engine.privilege.caller.uid);
        Ok(Session { key, files, network })
    }

    /// Whose credentials are kept.
    pub fn user(&self) -> Result<Option<String>> {
        Ok(match self.files.find(&self.key)? {
            Some(Credentials::Password { user, .. }) => Some(user),
            Some(Credentials::Identity(_)) => Some("<token>".to_owned()),
            None => None,
        })
    }

    /// The credentials that are kept.
    pub fn existing(&self) -> Result<Option<Credentials>> {
        self.files.find(&self.key)
    }

    /// Try credentials at the registry.
    pub fn check(&self, credentials: &Credentials) -> Result<()> {
        let host = self.key.split('/').next().unwrap_or(&self.key);
        let insecure = self.network.registries.is_insecure(host);
        let result = self.network.registry_as(host, insecure, credentials.clone())?.check();
        let what = format!("logging into \"{}\"", self.key);
        result.map_err(|error| {
            let refused = error.chain().any(|cause| {
                cause.is::<Refused>()
                    || cause.downcast_ref::<StatusError>().is_some_and(|status| matches!(status.status, 401 | 403))
            });
            if refused { anyhow!("{what}: invalid username/password") } else { error.context(what) }
        })
    }

    /// Try, and keep.
    ///
    /// # Returns
    /// Where they are kept.
    pub fn log_in(&self, user: &str, password: &str) -> Result<String> {
        ensure!(!user.contains(':'), "a user name has no colon in it");
        self.check(&Credentials::Password { user: user.to_owned(), password: password.to_owned() })?;
        self.files.store(&self.key, user, password)
    }
}

/// Forget the credentials for a registry.
pub fn log_out(engine: &Engine, authfile: Option<&Path>, registry: Option<&str>) -> Result<String> {
    let registries = Registries::load()?;
    let key = match registry {
        Some(registry) => key(registry)?,
        None => registries.search_list().into_iter().next().context("please specify a registry to log out from")?,
    };
    let files = AuthFiles::new(authfile, registries.credential_helpers, engine.privilege.caller.uid);
    match files.remove(&key)? {
        Removed::Yes => Ok(format!("Removed login credentials for {key}")),
        Removed::NotThere => bail!("not logged into {key}"),
        Removed::InDockers => Ok(format!(
            "Not logged into {key} with current tool. Existing credentials were established via docker login. Please use \
             docker logout instead."
        )),
    }
}

/// Forget all of them.
pub fn log_out_everywhere(engine: &Engine, authfile: Option<&Path>) -> Result<()> {
    AuthFiles::new(authfile, Vec::new(), engine.privilege.caller.uid).remove_all()
}

/// `HOST[:PORT][/NAMESPACE]`, without a scheme.
fn key(registry: &str) -> Result<String> {
    if registry.starts_with("http://") || registry.starts_with("https://") {
        return Ok(normal(registry));
    }
    let key = normal(registry.trim_end_matches('/'));
    let host = key.split('/').next().unwrap_or_default();
    ensure!(
        !host.is_empty() && !key.contains([' ', '@']) && crate::image::http::Origin::new(true, host).is_ok(),
        "credentials key \"{registry}\" is not HOST[:PORT][/NAMESPACE]"
    );
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(key("r.test:5000").unwrap(), "r.test:5000");
        assert_eq!(key("https://index.docker.io/v1/").unwrap(), "docker.io");
        assert_eq!(key("r.test/team/").unwrap(), "r.test/team");
        assert!(key("").is_err());
        assert!(key("user@r.test").is_err());
    }
}
