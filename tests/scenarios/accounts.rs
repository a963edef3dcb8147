//! Accounts that are not people: the operator's own, service accounts, and names that somebody puts on.
#![allow(dead_code, reason = "each scenario needs another part")]

use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::world::{World, client};

/// A service account with every right in the world's namespace.
pub struct Robot {
    pub username: String,
    pub client: Client,
}

impl Robot {
    /// Its namespace and name.
    pub fn names(&self) -> (&str, &str) {
        let names = self.username.strip_prefix("system:serviceaccount:").and_then(|names| names.split_once(':'));
        names.expect("a service account")
    }
}

impl World {
    /// The account that the operator itself runs under.
    pub async fn operator_account(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.stack.operator.kubeconfig).expect("the operator's kubeconfig");
        client(kubeconfig, &KubeConfigOptions::default()).await
    }

    /// Somebody with this username, who can sign in with none of their own: what another sign-in could be mapped to.
    pub async fn somebody_called(&self, username: &str) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(&self.stack.kubeconfig).expect("the stack's kubeconfig");
        for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.impersonate = Some(username.to_owned());
            user.impersonate_groups = Some(vec!["system:authenticated".into(), "oidc:everybody".into()]);
        }
        let options = KubeConfigOptions { context: Some("admin".into()), ..KubeConfigOptions::default() };
        client(kubeconfig, &options).await
    }

    /// A service account of the world's namespace, and its administrator.
    pub async fn robot(&self, name: &str) -> Robot {
        self.does(&["create", "serviceaccount", name]).await;
        let username = format!("system:serviceaccount:{}:{name}", self.namespace);
        self.makes_administrator(&username).await;
        let token = self.does(&["create", "token", name]).await;
        Robot { username, client: self.stack.bearer(token.trim()).await }
    }

    /// Makes somebody an administrator of the world's namespace, as the owner of a namespace often is.
    pub async fn makes_administrator(&self, username: &str) {
        let name = username.replace([':', '/'], "-");
        let user = format!("--user={username}");
        self.does(&["create", "rolebinding", &name, "--clusterrole=cluster-admin", &user]).await;
    }

    /// kubectl as the administrator, which must succeed; what it wrote.
    pub async fn does(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments).await;
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
