package main

import (
	"encoding/json"
	"os"
	"runtime"

	etcdversion "go.etcd.io/etcd/api/v3/version"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubeversion "k8s.io/component-base/version"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	managerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// The Kubernetes programs read os.Args themselves and keep flags and feature gates in globals, so a process runs one of
// them and no other. Each function here does what that program's own main does.

func apiserver(args []string) error {
	os.Args = append([]string{"kube-apiserver"}, args...)
	os.Exit(cli.Run(apiserverapp.NewAPIServerCommand()))
	return nil
}

func controllerManager(args []string) error {
	os.Args = append([]string{"kube-controller-manager"}, args...)
	os.Exit(cli.Run(managerapp.NewControllerManagerCommand()))
	return nil
}

func kubectl(args []string) error {
	os.Args = append([]string{"kubectl"}, args...)
	if _, err := logs.GlogSetter(kubectlcmd.GetLogVerbosity(os.Args)); err != nil {
		return err
	}
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints as kubectl does, and exits
	}
	return nil
}

func version([]string) error {
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"kubernetes": kubeversion.Get().GitVersion,
		"etcd":       "v" + etcdversion.Version,
		"go":         runtime.Version(),
	})
}
