package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
)

// user writes a kubeconfig for any user, so that a test can be somebody with few rights.
func user(args []string) error {
	flags := flag.NewFlagSet("user", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of the cluster")
	name := flags.String("name", "", "the user, such as system:node:one")
	out := flags.String("out", "", "file to write; the default is users/NAME.kubeconfig in the cluster's folder")
	var groups list
	flags.Var(&groups, "group", "a group of the user, such as system:nodes; may be repeated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *name == "" || strings.ContainsRune(*name, filepath.Separator) {
		return fmt.Errorf("--name %q is not a user's name", *name)
	}
	c, err := load(*dir)
	if err != nil {
		return err
	}
	ca, err := openAuthority(c.path("pki"))
	if err != nil {
		return err
	}
	if *out == "" {
		*out = c.path(filepath.Join("users", *name+".kubeconfig"))
	}
	if err := ca.writeKubeconfig(*out, c.server(), *name, groups); err != nil {
		return err
	}
	fmt.Println(*out)
	return nil
}
