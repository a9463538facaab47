// Command ambit-kube is a Kubernetes control plane in one static binary: etcd, kube-apiserver, kube-controller-manager
// and kubectl, each built from its published Go module and unchanged. It is what Ambit's tests talk to where a folder of
// manifests is not enough: real authentication, authorization, admission, server-side apply, watches and garbage
// collection. Nodes, kubelets and the scheduler are not here; whoever starts it plays them.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const usage = `ambit-kube: a Kubernetes control plane in one binary

  ambit-kube up --dir DIR [flags]      make certificates, start the three parts, print one JSON line, stop on SIGTERM
  ambit-kube part NAME --dir DIR       run one part of that cluster again (etcd, apiserver, controller-manager)
  ambit-kube user --dir DIR --name U   write a kubeconfig with a client certificate for U [--group G]...
  ambit-kube version                   versions of what is inside, as JSON

  ambit-kube etcd ...                  a one-member etcd on a Unix socket
  ambit-kube apiserver ...             kube-apiserver with its own flags
  ambit-kube controller-manager ...    kube-controller-manager with its own flags
  ambit-kube kubectl ...               kubectl

A link named etcd, kube-apiserver, kube-controller-manager or kubectl runs that program.
`

// commands are the subcommands; each takes the arguments after its name.
var commands = map[string]func(args []string) error{
	"up":                 up,
	"part":               part,
	"user":               user,
	"version":            version,
	"etcd":               etcd,
	"apiserver":          apiserver,
	"controller-manager": controllerManager,
	"kubectl":            kubectl,
}

func main() {
	name, args := command(os.Args)
	run, found := commands[name]
	switch {
	case found:
		if err := run(args); err != nil {
			fmt.Fprintf(os.Stderr, "ambit-kube %s: %v\n", name, err)
			os.Exit(1)
		}
	case name == "help" || name == "-h" || name == "--help":
		fmt.Print(usage)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
}

// command finds the subcommand and its arguments: from the program's own name where that is one of the programs inside,
// else from the first argument.
func command(argv []string) (string, []string) {
	base := strings.TrimPrefix(filepath.Base(argv[0]), "kube-")
	if _, found := commands[base]; found {
		return base, argv[1:]
	}
	if len(argv) < 2 {
		return "", nil
	}
	return argv[1], argv[2:]
}
