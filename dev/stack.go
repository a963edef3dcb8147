package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stack is one set of servers. All that belongs to it lies in its state folder; two stacks share nothing but the cache.
type stack struct {
	dir  string   // state folder
	held *os.File // the lock: a file that nobody refers to is closed when the garbage collector comes by
	settings
}

// settings are what a stack remembers from one up to the next.
type settings struct {
	Checkout string `json:"checkout"`
	Ports    ports  `json:"ports"`
	Node     bool   `json:"node"` // the servers listen on the node's bridge
	cluster         // whose guest it is, if it has no API server of its own
}

// openStack finds the stack that this executable belongs to: it lies in the state folder's bin. The environment is not
// asked, because kubectl calls us for a person of this stack with whatever variables that person happens to have.
func openStack() (*stack, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	s := &stack{dir: filepath.Dir(filepath.Dir(exe))}
	if data, err := os.ReadFile(s.path("state.json")); err == nil {
		if err := json.Unmarshal(data, &s.settings); err != nil {
			return nil, fmt.Errorf("%s: %w", s.path("state.json"), err)
		}
	}
	if c := os.Getenv("HALLPASS_DEV_CHECKOUT"); c != "" {
		s.Checkout = c
	}
	if s.Checkout == "" {
		return nil, errors.New("nothing here yet: call dev/dev in the checkout")
	}
	return s, nil
}

func (s *stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *stack) source(elem ...string) string {
	return filepath.Join(append([]string{s.Checkout}, elem...)...)
}

// logFile is where the server of that name writes.
func (s *stack) logFile(name string) string { return s.path("log", name+".log") }

// lock keeps two commands from changing the same stack at once. It goes with the process.
func (s *stack) lock() (err error) {
	s.held, err = lockFile(s.path("lock"), "another command to finish in "+s.dir)
	return err
}

// lockFile takes an exclusive lock and says so when it has to wait. Closing the file releases it.
func lockFile(path, waitingFor string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return f, nil
	}
	fmt.Println("waiting for " + waitingFor)
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err == nil {
			return f, nil
		} else if !errors.Is(err, syscall.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// save writes a file so that a reader, or a crash, never sees half of it.
func save(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func saveJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return save(path, append(data, '\n'), 0o600)
}

// secret returns the random word kept in secrets/NAME, and makes it the first time.
func (s *stack) secret(name string) (string, error) {
	path := s.path("secrets", name)
	if data, err := os.ReadFile(path); err == nil {
		return string(data), nil
	}
	word := make([]byte, 20)
	if _, err := rand.Read(word); err != nil {
		return "", err
	}
	text := hex.EncodeToString(word)
	return text, save(path, []byte(text), 0o600)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
