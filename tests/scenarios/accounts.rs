//! Accounts that are not people: the operator's own, service accounts, and names that somebody puts on.
#![allow(dead_code, reason = "each scenario needs another part")]

use kube::{
    Client,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
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
        self.impersonated(None, username, &["system:authenticated", "oidc:everybody"]).await
    }

    /// Whoever has this token, or else the administrator, who says to be somebody in these groups.
    pub async fn impersonated(&self, token: Option<&str>, username: &str, groups: &[&str]) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(&self.stack.kubeconfig).expect("the stack's kubeconfig");
        for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            if let Some(token) = token {
                *user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            }
            user.impersonate = Some(username.to_owned());
            user.impersonate_groups =
                (!groups.is_empty()).then(|| groups.iter().map(|group| (*group).to_owned()).collect());
        }
        let options = KubeConfigOptions { context: Some("admin".into()), ..KubeConfigOptions::default() };
        client(kubeconfig, &options).await
    }

    /// A service account of the world's namespace, and its administrator.
    pub async fn robot(&self, name: &str) -> Robot {
        let robot = self.robot_in(&self.namespace, name).await;
        self.makes_administrator(&robot.username).await;
        robot
    }

    /// A service account.
    pub async fn robot_in(&self, namespace: &str, name: &str) -> Robot {
        self.does(&["create", "serviceaccount", name, "--namespace", namespace]).await;
        let token = self.does(&["create", "token", name, "--namespace", namespace]).await;
        let username = format!("system:serviceaccount:{namespace}:{name}");
        Robot { username, client: self.stack.bearer(token.trim()).await }
    }

    /// Makes somebody an administrator of the world's namespace, as the owner of a namespace often is.
    pub async fn makes_administrator(&self, username: &str) {
        self.makes_administrator_of(&self.namespace, username).await;
    }

    /// Makes somebody an administrator of this namespace.
    pub async fn makes_administrator_of(&self, namespace: &str, username: &str) {
        let name = username.replace([':', '/'], "-");
        let (user, role) = (format!("--user={username}"), "--clusterrole=cluster-admin");
        self.does(&["create", "rolebinding", &name, role, &user, "--namespace", namespace]).await;
    }

    /// kubectl as the administrator, which must succeed; what it wrote.
    pub async fn does(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments).await;
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
