package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// stopLimit is how long a part may take to end after SIGTERM before it is killed.
const stopLimit = 10 * time.Second

// started is the line that `up` prints once the cluster can be used.
type started struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	CA         string `json:"ca"`
	AuditLog   string `json:"auditLog"`
	PIDs       pids   `json:"pids"`
}

type pids struct {
	Etcd              int `json:"etcd"`
	APIServer         int `json:"apiserver"`
	ControllerManager int `json:"controllerManager"`
}

// exited is the line that `up` prints when a part ends that was not told to.
type exited struct {
	Exited string `json:"exited"`
	PID    int    `json:"pid"`
	Status string `json:"status"`
}

// child is a part that runs under `up`. done is closed when it has ended; status is set before.
type child struct {
	name   string
	pid    int
	done   chan struct{}
	status string
}

// group is the parts that were started, in that order, and the names of those that ended.
type group struct {
	cluster  *cluster
	children []*child
	ended    chan *child
}

// up makes a cluster, or takes up one whose folder is there, and keeps it until SIGTERM or SIGINT. A part that ends is
// reported and not started again: that is for the caller, with `part`, who then also stops it.
func up(args []string) error {
	c := &cluster{}
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	c.bindFlags(flags)
	limit := flags.Duration("timeout", 2*time.Minute, "how long the cluster may take to be ready")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := c.complete(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	// The parts are to die with this process. Linux ties that to the thread that started them.
	runtime.LockOSThread()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	g := &group{cluster: c, ended: make(chan *child, 3)}
	defer g.stop()
	if err := g.start(ctx, *limit); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(g.started()); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ended := <-g.ended:
			line := exited{Exited: ended.name, PID: ended.pid, Status: ended.status}
			if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
				return err
			}
		}
	}
}

// start starts the parts, each once the one before can serve it.
func (g *group) start(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	steps := []struct {
		part  string
		ready func(context.Context, *cluster) error
	}{
		{partEtcd, etcdReady},
		{partAPIServer, apiserverReady},
		{partController, controllersReady},
	}
	for _, step := range steps {
		if err := g.spawn(step.part); err != nil {
			return fmt.Errorf("%s: %w", step.part, err)
		}
		if err := g.await(ctx, step.ready); err != nil {
			return fmt.Errorf("%s: %w; see %s", step.part, err, g.cluster.log(step.part))
		}
	}
	return nil
}

// await runs ready, and gives up when a part ends.
func (g *group) await(ctx context.Context, ready func(context.Context, *cluster) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan error, 1)
	go func() { result <- ready(ctx, g.cluster) }()
	select {
	case err := <-result:
		return err
	case ended := <-g.ended:
		return fmt.Errorf("%s ended before the cluster was ready: %s", ended.name, ended.status)
	}
}

func (g *group) spawn(name string) error {
	args, err := g.cluster.args(name)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	output, err := g.cluster.openLog(name)
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.Command(self, args...)
	command.Args[0] = "ambit-kube" // whatever the file is named, it must not choose the program
	command.Stdout, command.Stderr = output, output
	// A group of its own: Ctrl-C reaches this process alone, which then stops the parts in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return err
	}
	started := &child{name: name, pid: command.Process.Pid, done: make(chan struct{})}
	g.children = append(g.children, started)
	go func() {
		// The error of Wait says what the state says.
		_ = command.Wait()
		started.status = command.ProcessState.String()
		close(started.done)
		g.ended <- started
	}()
	return nil
}

// stop ends the parts that still run, the last started first, so that none loses what it depends on.
func (g *group) stop() {
	for i := len(g.children) - 1; i >= 0; i-- {
		if err := g.children[i].stop(); err != nil {
			fmt.Fprintf(os.Stderr, "ambit-kube up: %s: %v\n", g.children[i].name, err)
		}
	}
}

func (c *child) stop() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := syscall.Kill(c.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(stopLimit):
	}
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	<-c.done
	return fmt.Errorf("did not end within %s and was killed", stopLimit)
}

func (g *group) started() started {
	line := started{
		Kubeconfig: g.cluster.kubeconfig(),
		Server:     g.cluster.server(),
		CA:         g.cluster.pki("ca.crt"),
		AuditLog:   g.cluster.path("audit.log"),
	}
	for _, part := range g.children {
		switch part.name {
		case partEtcd:
			line.PIDs.Etcd = part.pid
		case partAPIServer:
			line.PIDs.APIServer = part.pid
		case partController:
			line.PIDs.ControllerManager = part.pid
		}
	}
	return line
}
