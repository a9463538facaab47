package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd runs a one-member etcd until SIGTERM or SIGINT.
//
// Clients come over a Unix socket: no port to find, no certificates, and only the socket's owner can connect. Writes are
// not forced to the disk: what a killed process wrote is still in the page cache, so kill -9 loses nothing, and only a
// crash of the machine could.
func etcd(args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dataDir := flags.String("data-dir", "", "folder of the data; made when it is missing")
	clientURL := flags.String("client-url", "", "where clients connect, as unix:///absolute/path")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := etcdConfig(*dataDir, *clientURL)
	if err != nil {
		return err
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		server.Close()
		return nil
	case err := <-server.Err():
		return err
	case <-server.Server.StopNotify():
		return errors.New("the server stopped by itself")
	}
}

func etcdConfig(dataDir, clientURL string) (*embed.Config, error) {
	client, err := url.Parse(clientURL)
	if err != nil {
		return nil, err
	}
	if client.Scheme != "unix" || client.Host != "" || !filepath.IsAbs(client.Path) {
		return nil, fmt.Errorf("--client-url %q is not of the form unix:///absolute/path", clientURL)
	}
	if dataDir == "" {
		return nil, errors.New("--data-dir is missing")
	}
	if dataDir, err = filepath.Abs(dataDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, err
	}
	// The peer socket, which nobody uses, is named by host and port alone and so made in the working directory.
	if err := os.Chdir(dataDir); err != nil {
		return nil, err
	}
	peer := url.URL{Scheme: "unix", Host: "peer:0"}

	config := embed.NewConfig()
	config.Name = "ambit"
	config.Dir = dataDir
	config.ListenPeerUrls = []url.URL{peer}
	config.AdvertisePeerUrls = []url.URL{peer}
	config.ListenClientUrls = []url.URL{*client}
	config.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Host: "client:0"}}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	// The embedded default of zero would log every request as slow.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}
	return config, nil
}
