package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

//go:embed audit-policy.yaml
var auditPolicy []byte

//go:embed authentication.yaml
var authentication []byte

// controllers are those that a mesh can tell are there. Left out: all that deals with volumes, clouds, node addresses
// and certificate requests, and the two that mark nodes as lost and evict their pods, which need the kubelets' leases.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"daemonset-controller",
	"deployment-controller",
	"disruption-controller",
	"endpointslice-controller",
	"endpointslice-mirroring-controller",
	"garbage-collector-controller",
	"horizontal-pod-autoscaler-controller",
	"job-controller",
	"namespace-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"statefulset-controller",
}

// prepare makes the cluster's folder with all files that the parts read.
func (c *cluster) prepare() error {
	names, err := c.serverNames()
	if err != nil {
		return err
	}
	for _, dir := range []string{c.dir, c.path("pki"), c.path("log"), c.path("etcd")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	ca, err := openAuthority(c.path("pki"))
	if err != nil {
		return err
	}
	issued, err := ca.server(names)
	if err != nil {
		return err
	}
	if err := ensureServiceAccountKey(c.pki("sa.key")); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(c.pki("apiserver.crt"), issued.cert, 0o644),
		os.WriteFile(c.pki("apiserver.key"), issued.key, 0o600),
		os.WriteFile(c.path("audit-policy.yaml"), auditPolicy, 0o644),
		os.WriteFile(c.path("authentication.yaml"), authentication, 0o644),
		ca.writeKubeconfig(c.kubeconfig(), c.server(), "admin", []string{"system:masters"}),
		ca.writeKubeconfig(c.managerKubeconfig(), c.server(), "system:kube-controller-manager", nil),
		c.save(),
	)
}

// args are the arguments of ambit-kube that run the part.
func (c *cluster) args(name string) ([]string, error) {
	switch name {
	case partEtcd:
		return []string{partEtcd, "--data-dir=" + c.path("etcd"), "--client-url=unix://" + c.etcdSocket()}, nil
	case partAPIServer:
		return append(c.apiserverArgs(), c.APIServerArgs...), nil
	case partController:
		return append(c.controllerManagerArgs(), c.ControllerMgrArgs...), nil
	default:
		return nil, fmt.Errorf("no part is named %q; the parts are %s, %s and %s", name, partEtcd, partAPIServer, partController)
	}
}

func (c *cluster) apiserverArgs() []string {
	args := []string{
		partAPIServer,
		"--bind-address=" + c.Bind,
		"--secure-port=" + strconv.Itoa(c.Port),
		"--tls-cert-file=" + c.pki("apiserver.crt"),
		"--tls-private-key-file=" + c.pki("apiserver.key"),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--etcd-servers=unix://" + c.etcdSocket(),
		"--service-cluster-ip-range=" + c.ServiceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("sa.key"),
		"--service-account-signing-key-file=" + c.pki("sa.key"),
		"--authentication-config=" + c.path("authentication.yaml"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--audit-policy-file=" + c.path("audit-policy.yaml"),
		"--audit-log-path=" + c.path("audit.log"),
		"--audit-log-maxsize=100",
		"--audit-log-maxbackup=1",
		"--allow-privileged=true",
		// Webhooks are called at their pods' addresses: nobody here turns service addresses into them.
		"--enable-aggregator-routing=true",
		"--feature-gates=ClusterTrustBundle=true",
		"--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true",
		"--profiling=false",
	}
	if c.Advertise != "" {
		return append(args, "--advertise-address="+c.Advertise)
	}
	// A loopback address may not stand in an endpoint, so there is none. The address, of a range kept for examples,
	// only stops the API server from looking for a default route.
	return append(args, "--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1")
}

func (c *cluster) controllerManagerArgs() []string {
	return []string{
		partController,
		"--kubeconfig=" + c.managerKubeconfig(),
		"--controllers=" + strings.Join(controllers, ","),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.pki("sa.key"),
		"--root-ca-file=" + c.pki("ca.crt"),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--profiling=false",
	}
}

// part becomes one part of a cluster that `up` made, with the flags that it had there. The process keeps its id, and
// its output goes to the part's log.
func part(args []string) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("part", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := load(*dir)
	if err != nil {
		return err
	}
	argv, err := c.args(name)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	output, err := c.openLog(name)
	if err != nil {
		return err
	}
	for _, fd := range []int{1, 2} {
		if err := syscall.Dup2(int(output.Fd()), fd); err != nil {
			return err
		}
	}
	return syscall.Exec(self, append([]string{"ambit-kube"}, argv...), os.Environ())
}

func (c *cluster) openLog(name string) (*os.File, error) {
	return os.OpenFile(c.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
