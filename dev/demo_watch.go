package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"
)

const pollInterval = 20 * time.Millisecond

// accessWatch asks Keycloak's administration API again and again what a person has.
type accessWatch struct {
	stack  *stack
	admin  *peer
	user   string // id
	before []string

	done          chan struct{}
	mu            sync.Mutex
	now           []string // guarded by mu, as all below
	grew, emptied time.Time
	err           error
}

// watchAccess begins with what the person has now; added tells what came since.
func (s *stack) watchAccess(name string) (*accessWatch, error) {
	w := &accessWatch{stack: s, done: make(chan struct{})}
	if err := w.signIn(); err != nil {
		return nil, err
	}
	var users []struct {
		ID string `json:"id"`
	}
	if err := w.admin.get("/admin/realms/"+realmName+"/users?exact=true&username="+url.QueryEscape(name), &users); err != nil {
		return nil, err
	}
	if len(users) != 1 {
		return nil, fmt.Errorf("%d users named %s in Keycloak", len(users), name)
	}
	w.user = users[0].ID
	var err error
	if w.before, err = w.look(); err != nil {
		return nil, err
	}
	w.now = w.before
	go w.poll()
	return w, nil
}

func (w *accessWatch) signIn() error {
	password, err := w.stack.secret("keycloak-admin")
	if err != nil {
		return err
	}
	t, err := w.stack.signIn("master", "admin-cli", adminUser, password)
	if err != nil {
		return err
	}
	client, err := w.stack.trusting()
	if err != nil {
		return err
	}
	w.admin = &peer{url: w.stack.keycloakURL(), http: client, bearer: t.Access}
	return nil
}

// look lists realm roles, client roles and groups as Keycloak has them for the person.
func (w *accessWatch) look() ([]string, error) {
	type named struct {
		Name string `json:"name"`
		Path string `json:"path"`
	}
	var mappings struct {
		Realm   []named `json:"realmMappings"`
		Clients map[string]struct {
			Mappings []named `json:"mappings"`
		} `json:"clientMappings"`
	}
	var groups []named
	user := "/admin/realms/" + realmName + "/users/" + w.user
	if err := errors.Join(w.admin.get(user+"/role-mappings", &mappings), w.admin.get(user+"/groups", &groups)); err != nil {
		return nil, err
	}
	var all []string
	for _, role := range mappings.Realm {
		all = append(all, "realm role "+role.Name)
	}
	for client, roles := range mappings.Clients {
		for _, role := range roles.Mappings {
			all = append(all, "role "+role.Name+" of client "+client)
		}
	}
	for _, group := range groups {
		all = append(all, "group "+group.Path)
	}
	slices.Sort(all)
	return all, nil
}

// poll goes on until stop. An administrator's token lives a minute only.
func (w *accessWatch) poll() {
	signedIn := time.Now()
	for {
		select {
		case <-w.done:
			return
		case <-time.After(pollInterval):
		}
		var err error
		if time.Since(signedIn) > 30*time.Second {
			err, signedIn = w.signIn(), time.Now()
		}
		var now []string
		if err == nil {
			now, err = w.look()
		}
		w.note(now, err)
	}
}

func (w *accessWatch) note(now []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err != nil {
		return
	}
	if len(now) > len(w.now) {
		w.grew = time.Now()
	}
	if len(now) < len(w.now) && slices.Equal(now, w.before) {
		w.emptied = time.Now()
	}
	w.now = now
}

// added is what the person has beyond what was there at first.
func (w *accessWatch) added() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.now), func(one string) bool { return slices.Contains(w.before, one) })
}

// times are when the last of it arrived, and when all of it was gone.
func (w *accessWatch) times() (arrived, gone time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.grew, w.emptied
}

// wait returns when it is as hoped.
func (w *accessWatch) wait(ceiling time.Duration, hoped func(*accessWatch) bool) error {
	for deadline := time.Now().Add(ceiling); !hoped(w); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return errors.Join(fmt.Errorf("waited %.0f s; Keycloak lists %v", ceiling.Seconds(), w.now), w.err)
		}
	}
	return nil
}

func (w *accessWatch) stop() { close(w.done) }
