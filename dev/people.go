package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// tokens is what Keycloak answers to a sign-in.
type tokens struct {
	Access string `json:"access_token"`
	ID     string `json:"id_token"`
}

// claims are those that people of this stack care about.
type claims struct {
	Username    string           `json:"preferred_username"`
	Expires     int64            `json:"exp"`
	Groups      []string         `json:"groups"`
	RealmAccess roles            `json:"realm_access"`
	Clients     map[string]roles `json:"resource_access"`
}

type roles struct {
	Roles []string `json:"roles"`
}

// signIn gets fresh tokens with a name and a password.
func (s *stack) signIn(realm, client, user, password string) (*tokens, error) {
	trusting, err := s.trusting()
	if err != nil {
		return nil, err
	}
	form := url.Values{
		"grant_type": {"password"}, "client_id": {client}, "username": {user}, "password": {password}, "scope": {"openid"},
	}
	p := peer{url: s.keycloakURL(), http: trusting}
	request, err := http.NewRequest(http.MethodPost,
		p.url+"/realms/"+realm+"/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var t tokens
	if err := p.send(request, &t); err != nil {
		return nil, fmt.Errorf("sign in as %s: %w", user, err)
	}
	return &t, nil
}

// signInPerson is the sign-in that kubectl does for a person.
func (s *stack) signInPerson(name string) (*tokens, error) {
	return s.signIn(realmName, peopleClient, name, name)
}

// parseClaims reads a token without verifying it; it came straight from its issuer.
func parseClaims(token string) (*claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a JWT")
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	var c claims
	return &c, json.Unmarshal(data, &c)
}

// execCredential is kubectl's credential plugin: it signs the person in and hands over the ID token.
func (s *stack) execCredential(args []string) error {
	name, err := person(args)
	if err != nil {
		return err
	}
	t, err := s.signInPerson(name)
	if err != nil {
		return err
	}
	c, err := parseClaims(t.ID)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1",
		"kind":       "ExecCredential",
		"status": map[string]string{
			"token": t.ID, "expirationTimestamp": time.Unix(c.Expires, 0).UTC().Format(time.RFC3339),
		},
	})
}

func person(args []string) (string, error) {
	if len(args) == 0 || !slices.Contains(people, args[0]) {
		return "", errors.New("name one of " + strings.Join(people, ", "))
	}
	return args[0], nil
}

// showToken signs a person in and prints what the access token says, or the token.
func (s *stack) showToken(args []string) error {
	name, err := person(args)
	if err != nil {
		return err
	}
	raw, err := onlyFlag(args[1:], "--raw")
	if err != nil {
		return err
	}
	t, err := s.signInPerson(name)
	if err != nil {
		return err
	}
	if raw {
		fmt.Println(t.Access)
		return nil
	}
	c, err := parseClaims(t.Access)
	if err != nil {
		return err
	}
	fmt.Print(c.summary())
	return nil
}

// clientRoles are the roles at clients, as client/role. Those of the account console, which everybody has, are left out.
func (c *claims) clientRoles() []string {
	var all []string
	for client, r := range c.Clients {
		for _, role := range r.Roles {
			if client != "account" {
				all = append(all, client+"/"+role)
			}
		}
	}
	slices.Sort(all)
	return all
}

// realmRoles leaves out what every user of a realm has.
func (c *claims) realmRoles() []string {
	everybody := []string{"default-roles-" + realmName, "offline_access", "uma_authorization"}
	return slices.DeleteFunc(slices.Clone(c.RealmAccess.Roles), func(r string) bool { return slices.Contains(everybody, r) })
}

func (c *claims) summary() string {
	list := func(all []string) string {
		if len(all) == 0 {
			return "none"
		}
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("user:         %s\nrealm roles:  %s\nclient roles: %s\ngroups:       %s\n",
		c.Username, list(c.realmRoles()), list(c.clientRoles()), list(c.Groups))
}
