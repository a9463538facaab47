package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The three parts, in the order in which they start.
const (
	partEtcd       = "etcd"
	partAPIServer  = "apiserver"
	partController = "controller-manager"
)

// socketPathMax is the longest path that a Unix socket may have on Linux.
const socketPathMax = 107

// cluster is all that decides the parts' flags. `up` keeps it in the cluster's folder, so that `part` starts a part with
// the flags it had.
type cluster struct {
	dir string

	Bind              string   `json:"bind"`
	Advertise         string   `json:"advertise"`
	Port              int      `json:"port"`
	ServiceCIDR       string   `json:"serviceCIDR"`
	SANs              []string `json:"sans"`
	APIServerArgs     []string `json:"apiserverArgs"`
	ControllerMgrArgs []string `json:"controllerManagerArgs"`
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string         { return strings.Join(*l, " ") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// bindFlags declares the flags of `up` that belong to the cluster.
func (c *cluster) bindFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.dir, "dir", "", "folder of the cluster, one per cluster; made when it is missing")
	flags.StringVar(&c.Bind, "bind", "127.0.0.1", "address that the API server listens on")
	flags.StringVar(&c.Advertise, "advertise", "",
		"address in the endpoints of the service default/kubernetes; the default is --bind unless that is loopback or"+
			" unspecified, and then the service has no endpoints of the API server's making")
	flags.IntVar(&c.Port, "port", 0, "port of the API server; 0 takes a free one")
	flags.StringVar(&c.ServiceCIDR, "service-cidr", "10.96.0.0/16", "range of service addresses, or two with a comma")
	flags.Func("san", "further addresses or names in the API server's certificate, with commas", func(value string) error {
		c.SANs = append(c.SANs, strings.Split(value, ",")...)
		return nil
	})
	flags.Var((*list)(&c.APIServerArgs), "apiserver-arg", "a further flag of kube-apiserver; may be repeated")
	flags.Var((*list)(&c.ControllerMgrArgs), "controller-manager-arg",
		"a further flag of kube-controller-manager; may be repeated")
}

// complete checks what was given and fills in what was not.
func (c *cluster) complete() error {
	if c.dir == "" {
		return errors.New("--dir is missing")
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return err
	}
	c.dir = dir
	if socket := c.etcdSocket(); len(socket) > socketPathMax {
		return fmt.Errorf("%s is too long for a socket, the limit is %d bytes: choose a shorter --dir", socket, socketPathMax)
	}
	bind := net.ParseIP(c.Bind)
	if bind == nil {
		return fmt.Errorf("--bind %q is not an IP address", c.Bind)
	}
	if c.Advertise != "" && net.ParseIP(c.Advertise) == nil {
		return fmt.Errorf("--advertise %q is not an IP address", c.Advertise)
	}
	if c.Advertise == "" && !bind.IsLoopback() && !bind.IsUnspecified() {
		c.Advertise = c.Bind
	}
	if c.Port == 0 {
		c.Port, err = freePort(c.Bind)
	}
	return err
}

// freePort asks the kernel for a port that nobody listens on.
func freePort(bind string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(bind, "0"))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// server is the URL of the API server as seen from this host.
func (c *cluster) server() string {
	host := c.Bind
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(c.Port))
}

// serverNames are all names and addresses that the API server's certificate must hold.
func (c *cluster) serverNames() ([]string, error) {
	names := []string{
		"127.0.0.1", "::1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	if bind := net.ParseIP(c.Bind); !bind.IsUnspecified() {
		names = append(names, c.Bind)
	}
	if c.Advertise != "" {
		names = append(names, c.Advertise)
	}
	for _, text := range strings.Split(c.ServiceCIDR, ",") {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, fmt.Errorf("--service-cidr: %w", err)
		}
		first := network.IP
		first[len(first)-1]++ // the address of the service default/kubernetes
		names = append(names, first.String())
	}
	return append(names, c.SANs...), nil
}

func (c *cluster) path(name string) string   { return filepath.Join(c.dir, name) }
func (c *cluster) etcdSocket() string        { return c.path("etcd.sock") }
func (c *cluster) kubeconfig() string        { return c.path("admin.kubeconfig") }
func (c *cluster) log(name string) string    { return c.path(filepath.Join("log", name+".log")) }
func (c *cluster) pki(name string) string    { return c.path(filepath.Join("pki", name)) }
func (c *cluster) managerKubeconfig() string { return c.path("controller-manager.kubeconfig") }

// save keeps the cluster in its folder.
func (c *cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("cluster.json"), append(text, '\n'), 0o600)
}

// load reads a cluster that `up` saved.
func load(dir string) (*cluster, error) {
	if dir == "" {
		return nil, errors.New("--dir is missing")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	text, err := os.ReadFile(c.path("cluster.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path("cluster.json"), err)
	}
	return c, nil
}
