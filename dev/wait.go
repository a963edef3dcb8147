package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

var printing sync.Mutex

// say prints one line; steps that run side by side do not mix theirs.
func say(format string, args ...any) {
	printing.Lock()
	defer printing.Unlock()
	fmt.Printf(format+"\n", args...)
}

// step does something and prints one line with the outcome and how long it took. do returns what to say.
func step(name string, do func() (string, error)) error {
	begin := time.Now()
	result, err := do()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	say("  %-24s %-52s %6.1f s", name, result, time.Since(begin).Seconds())
	return nil
}

// together runs the functions side by side and waits for all of them.
func together(functions ...func() error) error {
	results := make(chan error)
	for _, f := range functions {
		go func() { results <- f() }()
	}
	var all error
	for range functions {
		all = errors.Join(all, <-results)
	}
	return all
}

// untilOneFails runs the functions side by side and does not wait for the others when one fails.
func untilOneFails(functions ...func() error) error {
	results := make(chan error, len(functions))
	for _, f := range functions {
		go func() { results <- f() }()
	}
	for range functions {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

// waitFor polls until ready has no complaint. It gives up at the ceiling, and at once if one of the servers that are
// needed for it has ended, since nothing good would come any more.
func (s *stack) waitFor(servers []string, ceiling time.Duration, ready func() error) error {
	deadline := time.Now().Add(ceiling)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		for _, server := range servers {
			if s.running(server) == nil {
				return fmt.Errorf("%s ended; the end of %s:\n%s", server, s.logFile(server), s.logTail(server))
			}
		}
		if time.Now().After(deadline) {
			server := servers[0]
			return fmt.Errorf("not ready after %s: %w; the end of %s:\n%s", ceiling, err, s.logFile(server), s.logTail(server))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *stack) logTail(name string) string { return tail(s.logFile(name), 15) }

// tail returns the last lines of a file, indented. Lines of a log can be very long: they are cut.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "  (no log: " + err.Error() + ")"
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, l := range all {
		if len(l) > 300 {
			l = l[:300] + "..."
		}
		all[i] = "  " + l
	}
	return strings.Join(all, "\n")
}
