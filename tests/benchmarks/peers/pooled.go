// A server as one writes it in Go: a goroutine for each connection, net/smtp, and a pool of sessions.
//
//	pooled PORT SMTP-PORT SESSIONS
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/smtp"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const administrator = "helpdesk@example.com"

type request struct{ Email, Message string }

var (
	ticket   int64 = 10000
	sessions chan *smtp.Client
	address  string
)

func compose(number int64, r request) []byte {
	var b bytes.Buffer
	unique := make([]byte, 8)
	rand.Read(unique)
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nCc: %s\r\nSubject: [Ticket #%d] Mailer\r\nDate: %s\r\n",
		administrator, r.Email, administrator, number, time.Now().Format(time.RFC1123Z))
	fmt.Fprintf(&b, "Message-ID: <ticket.%d.%x@example.com>\r\nMIME-Version: 1.0\r\n", number, unique)
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	text := base64.StdEncoding.EncodeToString([]byte(r.Message))
	for len(text) > 76 {
		b.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	b.WriteString(text + "\r\n")
	return b.Bytes()
}

func transaction(c *smtp.Client, recipients []string, data []byte) error {
	if err := c.Mail(administrator); err != nil {
		return err
	}
	for _, recipient := range recipients {
		if err := c.Rcpt(recipient); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err = w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

func deliver(recipients []string, data []byte) (err error) {
	c := <-sessions
	if c == nil {
		if c, err = smtp.Dial(address); err != nil {
			sessions <- nil
			return err
		}
	}
	if err = transaction(c, recipients, data); err != nil {
		c.Close()
		c = nil
	}
	sessions <- c
	return err
}

func serve(connection net.Conn) {
	defer connection.Close()
	var head [4]byte
	for {
		if _, err := io.ReadFull(connection, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(connection, body); err != nil {
			return
		}
		var r request
		err := json.Unmarshal(body, &r)
		number := atomic.AddInt64(&ticket, 1)
		if err == nil {
			err = deliver([]string{r.Email, administrator}, compose(number, r))
		}
		reply := []byte(fmt.Sprintf(`{"status": "OK", "ticket": %d}`, number))
		if err != nil {
			reply, _ = json.Marshal(map[string]string{"status": "ERROR", "text": err.Error()})
		}
		frame := make([]byte, 4, 4+len(reply))
		binary.BigEndian.PutUint32(frame, uint32(len(reply)))
		if _, err := connection.Write(append(frame, reply...)); err != nil {
			return
		}
	}
}

func main() {
	address = "127.0.0.1:" + os.Args[2]
	count, _ := strconv.Atoi(os.Args[3])
	sessions = make(chan *smtp.Client, count)
	for i := 0; i < count; i++ {
		sessions <- nil
	}
	listening, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listening.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection)
	}
}
