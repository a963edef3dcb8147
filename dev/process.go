package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is what is remembered about a server that was started. A pid alone would not do: after a crash or a reboot
// the number may belong to somebody else's process, which must never get our signals.
type process struct {
	PID     int       `json:"pid"`
	Started string    `json:"started"` // identity: see startOf
	Args    []string  `json:"args"`
	Since   time.Time `json:"since"`
}

// program says how a server is started.
type program struct {
	name string
	args []string
	env  []string // added to ours
}

// startOf returns the boot and the moment (in clock ticks since that boot) at which the process was started. Together
// with the pid they name one process for ever. An ended process that nobody has collected yet counts as gone.
func startOf(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	state, ticks, err := parseStat(string(stat))
	if err != nil {
		return "", err
	}
	if state == "Z" || state == "X" {
		return "", os.ErrProcessDone
	}
	return strings.TrimSpace(string(boot)) + "/" + ticks, nil
}

// parseStat reads fields 3 (state) and 22 (start time) of /proc/PID/stat. Field 2 is the program's name in parentheses,
// which may itself hold spaces and parentheses, so fields are counted from the last one.
func parseStat(stat string) (state, ticks string, err error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", "", errors.New("no program name in " + strconv.Quote(stat))
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", "", errors.New("too few fields in " + strconv.Quote(stat))
	}
	return fields[0], fields[19], nil
}

func (s *stack) processFile(name string) string { return s.path("run", name+".json") }

// running returns the server's process, or nil if it does not run (any more).
func (s *stack) running(name string) *process {
	data, err := os.ReadFile(s.processFile(name))
	if err != nil {
		return nil
	}
	var p process
	if json.Unmarshal(data, &p) != nil {
		return nil
	}
	if started, err := startOf(p.PID); err != nil || started != p.Started {
		return nil
	}
	return &p
}

// start starts a server, unless it runs with the very same arguments. It reports whether it had to.
func (s *stack) start(p program) (bool, error) {
	if old := s.running(p.name); old != nil {
		if slices.Equal(old.Args, p.args) {
			return false, nil
		}
		if err := s.stop(p.name); err != nil {
			return false, err
		}
	}
	log, err := s.openLog(p.name)
	if err != nil {
		return false, err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env = append(serverEnv(), p.env...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: Ctrl-C in the terminal ends this tool, not the servers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start %s: %w", p.name, err)
	}
	go cmd.Wait() // collects it if it ends while we look
	started, err := startOf(cmd.Process.Pid)
	if err != nil {
		return false, fmt.Errorf("%s ended at once:\n%s", p.name, s.logTail(p.name))
	}
	record := process{PID: cmd.Process.Pid, Started: started, Args: p.args, Since: time.Now()}
	if err := saveJSON(s.processFile(p.name), record); err != nil {
		return false, errors.Join(err, cmd.Process.Kill())
	}
	return true, nil
}

// serverEnv is our environment without what would reconfigure a Keycloak behind our back.
func serverEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "KC_") || strings.HasPrefix(v, "QUARKUS_")
	})
}

// openLog appends: a log tells of the restarts too. A large one is put aside first.
func (s *stack) openLog(name string) (*os.File, error) {
	if err := os.MkdirAll(s.path("log"), 0o700); err != nil {
		return nil, err
	}
	path := s.logFile(name)
	if info, err := os.Stat(path); err == nil && info.Size() > 20<<20 {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// stop asks a server to end, waits, and ends it after 20 s.
func (s *stack) stop(name string) error { return s.end(name, syscall.SIGTERM, 20*time.Second) }

// end sends the signal and returns when the process is gone.
func (s *stack) end(name string, signal syscall.Signal, patience time.Duration) error {
	p := s.running(name)
	if p == nil {
		return removeIfThere(s.processFile(name))
	}
	// Holding the process by a handle and looking again leaves no moment in which the pid could pass to another one.
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	defer handle.Release()
	deadline := time.Now().Add(patience)
	for sent := false; s.running(name) != nil; {
		if !sent || time.Now().After(deadline) {
			if sent {
				signal = syscall.SIGKILL
			}
			if err := handle.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("signal %s: %w", name, err)
			}
			sent = true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return removeIfThere(s.processFile(name))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
